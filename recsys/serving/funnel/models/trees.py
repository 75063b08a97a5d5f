"""An exported HSNN as a source, which descends its tree, and as a scorer.

Legend: B requests, n pairs, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.artifacts.hsnn_tower import HsnnArtifact
from recsys.data.stores.live import LiveDataset
from recsys.index.hierarchy.descent import Allowed, descend
from recsys.index.hierarchy.exported import exported_scoring
from recsys.index.hierarchy.scoring import ItemTree
from recsys.serving.funnel.candidates import Offers, Requests, place_of
from recsys.serving.funnel.config import ModelConfig, RetrievedConfig, SimilarConfig
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.model import Numbering, context_of, not_similar, places_of
from recsys.serving.funnel.sources import DEPTH, unseen
from recsys.serving.funnel.stages import Scorer, Source

#: Users of a descent.
_USERS_AT_A_TIME = 32


class TreeModel:
    """Finds items by a tree, those of after the training too, and predicts tasks.

    Args:
        name: of the model in the funnel.
        artifact: the exported networks.
        dataset: that they were trained on, and what has come since.
        numbers: of the funnel's users and items.
        config: what is said of it.
    """

    def __init__(
        self,
        name: str,
        artifact: HsnnArtifact,
        dataset: LiveDataset,
        numbers: Numbering,
        config: ModelConfig,
    ) -> None:
        self.name, self.artifact, self.numbers = name, artifact, numbers
        self._config = config
        self.dataset = dataset.with_fit_vocabulary(artifact.manifest.fit_vocabulary)
        self.scoring = exported_scoring(artifact, self.dataset)
        self.context = config.context

    def grown(self, dataset: LiveDataset) -> TreeModel:
        """The same over its data set with further items."""
        return TreeModel(self.name, self.artifact, dataset, Numbering.of(dataset), self._config)

    @cached_property
    def items(self) -> ItemTree:
        """All items of the funnel in their nodes; a position is the funnel's number of an item."""
        return ItemTree(self.scoring, self.numbers.item)

    @property
    def tasks(self) -> list[str]:
        """That it predicts."""
        return [one["name"] for one in self.artifact.manifest.tasks]

    def source(self, name: str, config: RetrievedConfig, known: Knowledge) -> Source:
        """The best items below the best nodes."""
        task = config.task or self.artifact.manifest.ranked_by
        where = f"funnel.sources.retrieved.{name}.task of {self.name}"
        place = int(places_of(where, [task], self.tasks)[0])
        beam = config.beam or self.artifact.manifest.beam
        return _Descent(self, name, known, config.quota, beam, place)

    def similar(self, name: str, config: SimilarConfig, known: Knowledge) -> Source:
        """Nothing is like anything to it."""
        raise not_similar(name, self.name, "an hsnn")

    def scorer(self, tasks: Sequence[str] | None) -> Scorer:
        """Predictions of some tasks, or of the one it ranks by."""
        wanted = [self.artifact.manifest.ranked_by] if tasks is None else tasks
        places = places_of(f"funnel: scorer={self.name}", wanted, self.tasks)
        return _Predictions(self, places, alone=tasks is None)


@dataclass(frozen=True, eq=False)
class _Descent:
    model: TreeModel
    name: str
    known: Knowledge
    quota: int
    beam: int
    task: int

    def find(self, requests: Requests) -> Offers:
        """What can be shown and lies below the best nodes, and the user has not seen."""
        model, tree = self.model, self.model.items
        alive = np.zeros(len(tree.tree.items), bool)
        alive[self.known.alive] = True
        alive[model.numbers.item == 0] = False
        depth = DEPTH * self.quota
        item = np.full((len(requests), depth), -1, np.int64)
        score = np.zeros((len(requests), depth))
        for start in range(0, len(requests), _USERS_AT_A_TIME):
            some = np.arange(start, min(start + _USERS_AT_A_TIME, len(requests)))
            user = model.numbers.user[requests.user[some]]
            users = model.scoring.users(user, requests.moment[some])
            reached = descend(
                tree.tree,
                len(some),
                tree.scorer(users, self.task),
                self.beam,
                depth,
                Allowed(alive, None),
            )
            rank = place_of(np.bincount(reached.user))
            best = rank < depth
            row, column = some[reached.user[best]], rank[best]
            item[row, column] = reached.item[best]
            score[row, column] = reached.value[best]
        return unseen(self.known, requests, np.maximum(item, 0), score, self.quota, item >= 0)


@dataclass(frozen=True, eq=False)
class _Predictions:
    model: TreeModel
    order: NDArray[np.int64]
    alone: bool

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n, K], or [n] of the task it ranks by."""
        model = self.model
        if not len(item):
            return np.empty(0 if self.alone else (0, len(self.order)))
        users = model.scoring.users(model.numbers.user[requests.user], requests.moment)
        context = context_of(requests, lengths, model.dataset.manifest, model.context)
        found = model.scoring.given(
            users,
            np.repeat(np.arange(len(requests)), lengths),
            model.numbers.item[item],
            model.scoring.context(context, len(item)),
        )[:, self.order]
        return found[:, 0] if self.alone else found
