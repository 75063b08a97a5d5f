"""An exported ranker as the second stage of a funnel.

Legend: B requests, n pairs, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.artifacts.ranker_tower import RankerArtifact, user_inputs
from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.stores.live import LiveDataset
from recsys.embeddings.point_in_time import PointInTimeEmbeddings
from recsys.serving.funnel.cache.user_sides import KeptSides, UserSides
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import ModelConfig, RetrievedConfig, SimilarConfig
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.model import Numbering, context_of, not_similar, places_of
from recsys.serving.funnel.stages import Scorer, Source

#: What stands in a store is served.
_NO_DELAY = 0.0


class RankerModel:
    """Predicts what users would do with candidates.

    Args:
        name: of the model in the funnel.
        artifact: the exported ranker.
        dataset: that it was trained on, and what has come since.
        numbers: of the funnel's users and items.
        config: what is said of it.
        sides: of users, that the same ranker has made before.

    Raises:
        ConfigError: published user embeddings are given and not read, or read and not given.
    """

    def __init__(
        self,
        name: str,
        artifact: RankerArtifact,
        dataset: LiveDataset,
        numbers: Numbering,
        config: ModelConfig,
        sides: UserSides | None = None,
    ) -> None:
        manifest = artifact.manifest
        self.sides = sides or UserSides()
        self.name, self.artifact, self.numbers = name, artifact, numbers
        self._config = config
        self.dataset = dataset.with_fit_vocabulary(manifest.fit_vocabulary)
        self.context = config.context
        self.reader = RankingReader(
            self.dataset,
            gap_hours=manifest.gap_hours,
            recent_events=manifest.max_length,
            features=CandidateFeatureConfig.stored(manifest.counting),
            user_embeddings=_published(name, artifact, self.dataset, config.stores),
        )
        if list(self.reader.candidates.names) != manifest.features["counted"]:
            raise ArtifactError(
                f"{dataset.path} counts other numbers of candidates than the data set that "
                f"{artifact.folder} was trained on; train again on the data set as it is."
            )

    def grown(self, dataset: LiveDataset) -> RankerModel:
        """The same over its data set with further items."""
        numbers = Numbering.of(dataset)
        return RankerModel(self.name, self.artifact, dataset, numbers, self._config, self.sides)

    def source(self, name: str, config: RetrievedConfig, known: Knowledge) -> Source:
        """A ranker finds nothing."""
        raise ConfigError(
            f"funnel.sources.retrieved.{name}: {self.name} is a ranker, which scores candidates "
            "and finds none; name a two_tower, nxtpost, sequence or hsnn."
        )

    def similar(self, name: str, config: SimilarConfig, known: Knowledge) -> Source:
        """Nothing is like anything to it."""
        raise not_similar(name, self.name, "a ranker")

    def scorer(self, tasks: Sequence[str] | None) -> Scorer:
        """Predictions of some of its tasks."""
        own = [task["name"] for task in self.artifact.manifest.tasks]
        if tasks is None:
            raise ConfigError(
                f"funnel.first.scorer={self.name}: a ranker predicts tasks, and is for the second "
                "stage; the first takes one number, of a two_tower, nxtpost or sequence."
            )
        return _Predictions(self, places_of(f"funnel.second.scorer={self.name}", tasks, own))


@dataclass(frozen=True, eq=False)
class _Predictions:
    """Predictions of some tasks, in their order: a user's side once, then the candidates.

    Attributes:
        model: predicts.
        order: [K] places of the tasks among its own.
        kept: sides that need not be made; None to make all of them.
    """

    model: RankerModel
    order: NDArray[np.int64]
    kept: KeptSides | None = None

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    @property
    def sides(self) -> UserSides:
        """Those that the model has made."""
        return self.model.sides

    def keeping(self, kept: KeptSides) -> Scorer:
        """The same, which makes only what is not kept."""
        return replace(self, kept=kept)

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n, K]."""
        model, some = self.model, lengths > 0
        if not some.any():
            return np.empty((0, len(self.order)), np.float32)
        asking, lengths = requests.only(some), lengths[some]
        rows = model.reader.given_rows(
            model.numbers.user[asking.user],
            asking.moment,
            lengths,
            model.numbers.item[item],
            context_of(asking, lengths, model.dataset.manifest, model.context),
        )
        inputs = model.reader.candidate_side(rows)
        parts = zip(*(torch.split(of, lengths.tolist()) for of in inputs.values()), strict=True)
        found = [
            model.artifact.score(side, **dict(zip(inputs, part, strict=True)))
            for side, part in zip(self._sides_of(asking), parts, strict=True)
        ]
        return torch.cat(found).numpy()[:, self.order]

    def _sides_of(self, requests: Requests) -> list[dict[str, Tensor]]:
        """[B] what the ranker makes of users."""
        pairs = zip(requests.user.tolist(), requests.moment.tolist(), strict=True)
        there = [None if self.kept is None else self.kept.get(*pair) for pair in pairs]
        made = iter(self._make(requests.only(np.array([one is None for one in there]))))
        return [next(made) if one is None else one for one in there]

    def _make(self, requests: Requests) -> list[dict[str, Tensor]]:
        """The same anew; it is kept, if it is numbers."""
        if not len(requests):
            return []
        user = self.model.numbers.user[requests.user]
        rows, nothing = np.zeros(len(user), np.int64), np.empty(0, np.int64)
        batch = self.model.reader.given(user, requests.moment, rows, nothing)
        encode = self.model.artifact.encode_user
        sides = [encode(**user_inputs(batch, number)) for number in range(len(requests))]
        if self.kept is not None:
            pairs = zip(requests.user.tolist(), requests.moment.tolist(), strict=True)
            for pair, side in zip(pairs, sides, strict=True):
                if all(bool(of.isfinite().all()) for of in side.values()):
                    self.kept.put(*pair, side)
        return sides


def _published(
    name: str, artifact: RankerArtifact, dataset: LiveDataset, stores: Sequence[str]
) -> PointInTimeEmbeddings | None:
    shape = artifact.manifest.published
    if bool(shape) != bool(stores):
        what = "needs stores=[…], where its users' embeddings are served" if shape else "reads none"
        raise ConfigError(
            f"funnel.models.{name}: published user embeddings: {artifact.folder} {what}."
        )
    return PointInTimeEmbeddings(dataset, stores, _NO_DELAY) if stores else None
