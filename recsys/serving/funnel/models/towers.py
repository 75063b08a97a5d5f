"""An exported tower of users as a source, as a first stage, and for items like others.

Legend: B requests, n pairs, A items that can be shown now, V items of the funnel, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.sequence_tower import SequenceTowerArtifact, TwoTowerManifest
from recsys.core.errors import ConfigError
from recsys.data.batches.item_corpus import ItemCorpusConfig, read_item_corpus
from recsys.data.content.text import HashedTextConfig
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.engagements.build import COLUMNS, OFFSETS, engagements_before
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import Engagements
from recsys.data.stores.live import LiveDataset
from recsys.serving.funnel.candidates import Offers, Requests
from recsys.serving.funnel.config import ModelConfig, RetrievedConfig, SimilarConfig
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.model import Numbering
from recsys.serving.funnel.sources import DEPTH, highest, unseen
from recsys.serving.funnel.stages import Scorer, Source
from recsys.serving.opening import counted_sequences, gap_ms, history_reader, item_content

#: Items that are embedded at a time, and users whose products are computed at a time: a matrix of
#: one height, filled up, so that a user's products do not depend on who else is in it.
_ITEMS_AT_A_TIME, _USERS_AT_A_TIME = 8_192, 16
#: Sequences of no user; those of a request are read when it asks.
_NOBODY = Engagements(
    {OFFSETS: np.zeros(1, np.int64), **{n: np.empty(0, t) for n, t in COLUMNS.items()}}
)


class TowerModel:
    """Embeds users by what they did until now, and items, those of after the training too.

    Args:
        name: of the model in the funnel.
        artifact: the exported towers.
        dataset: that they were trained on, and what has come since.
        numbers: of the funnel's users and items.
        config: what is said of it.
        former: the same over fewer items, whose embeddings are taken over.

    Raises:
        ConfigError: its scores are no products, or published user embeddings are given and not
            read, or read and not given.
    """

    def __init__(
        self,
        name: str,
        artifact: SequenceTowerArtifact,
        dataset: LiveDataset,
        numbers: Numbering,
        config: ModelConfig,
        former: TowerModel | None = None,
    ) -> None:
        if artifact.mixture is not None:
            raise ConfigError(
                f"funnel.models.{name}: {artifact.folder} is a mixture of logits, whose scores are "
                "no products of embeddings; train with model.similarity=dot."
            )
        self.name, self.numbers, self.dataset = name, numbers, dataset
        self._artifact, self._config = artifact, config
        self._embedded = np.empty((0, 0), np.float32) if former is None else former.content[0]
        self._restated = np.empty(0, np.int64)
        if former is not None:
            self._restated = dataset.restated(former.dataset)
        self.sequences, self._gap = counted_sequences(artifact, dataset), gap_ms(artifact)
        self._reader = history_reader(artifact, dataset, _NOBODY, config.stores)
        self._asked: tuple[Requests, NDArray[np.float32]] | None = None

    def grown(self, dataset: LiveDataset) -> TowerModel:
        """The same over its data set with further items, of which only those are embedded."""
        numbers = Numbering.of(dataset)
        return TowerModel(self.name, self._artifact, dataset, numbers, self._config, self)

    @cached_property
    def content(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """[indices of the data set, W] of items, zeros where there is none, and which it reads."""
        manifest = self._artifact.manifest
        if not isinstance(manifest, TwoTowerManifest) or self._artifact.items is None:
            found, known = item_content(self._artifact, self.dataset)
            return found, np.ones(len(found), bool) if known is None else known
        how = manifest.items
        corpus = read_item_corpus(
            self.dataset, ItemCorpusConfig(**how["corpus"]), HashedTextConfig(**how["hashed_text"])
        )
        size = self.dataset.manifest.vocabulary_sizes["item"]
        fresh = np.append(self._restated, np.arange(len(self._embedded), size))
        parts = [
            self._artifact.embed_items(corpus.select(chunk)).numpy()
            for chunk in torch.from_numpy(fresh).split(_ITEMS_AT_A_TIME)
        ]
        embedded = np.concatenate(parts)
        found = np.zeros((size, embedded.shape[1]), np.float32)
        found[: len(self._embedded)] = self._embedded.reshape(-1, embedded.shape[1])
        found[fresh] = embedded
        found[0] = 0
        return found, np.ones(len(found), bool)

    @cached_property
    def items(self) -> NDArray[np.float32]:
        """[V, W] of the funnel's items; zeros for one of which the model knows nothing."""
        return self.content[0][self.numbers.item]

    def histories(
        self, requests: Requests, sequences: SequenceConfig
    ) -> tuple[NDArray[np.int64], Engagements]:
        """[B] user indices, and what they engaged with before their moments, less the gap."""
        user = self.numbers.user[requests.user]
        owner, columns, _ = engagements_before(
            self.dataset, user, requests.moment - self._gap, sequences, self.content[1]
        )
        ends = np.cumsum(np.bincount(owner, minlength=len(user)))
        return user, Engagements({OFFSETS: np.append(0, ends), **columns})

    def users(self, requests: Requests) -> NDArray[np.float32]:
        """[B, W] of the requests' users; of stages that ask one after the other computed once."""
        if self._asked is not None and self._asked[0] is requests:
            return self._asked[1]
        user, engagements = self.histories(requests, self.sequences)
        reader = self._reader.of_others(engagements, user)
        batch = reader.before(np.arange(len(user)), requests.moment)
        content = torch.from_numpy(self.content[0][batch.item.numpy()])
        found: NDArray[np.float32] = self._artifact.embed(batch, content).numpy()
        self._asked = (requests, found)
        return found

    def source(self, name: str, config: RetrievedConfig, known: Knowledge) -> Source:
        """The items of the largest products."""
        return _Nearest(self, name, known, config.quota, lambda of: self.users(of)[:, None])

    def similar(self, name: str, config: SimilarConfig, known: Knowledge) -> Source:
        """The items nearest to one of a user's newest engagements."""
        actions = list(config.actions) or self.sequences.actions
        sequences = replace(self.sequences, actions=actions, repeats=True)
        sequences.action_codes(self.dataset.manifest.actions)  # all are of the data set
        newest = _Newest(self, sequences, config.events, config.hours)
        return _Nearest(self, name, known, config.quota, newest.embeddings)

    def scorer(self, tasks: Sequence[str] | None) -> Scorer:
        """The product of user and item."""
        if tasks is not None:
            raise ConfigError(
                f"funnel.second.scorer={self.name}: it gives one number, and predicts no tasks; it "
                "is a source or the first stage, and a ranker or hsnn the second."
            )
        return _Products(self)


@dataclass(frozen=True, eq=False)
class _Products:
    model: TowerModel

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n]; NaN for an item of which the model knows nothing."""
        users, items = self.model.users(requests), self.model.items[item]
        products = np.repeat(users, lengths, axis=0).astype(np.float64) * items
        return np.where(items.any(axis=1), products.sum(axis=1), np.nan)


@dataclass(frozen=True, eq=False)
class _Newest:
    """Embeddings of the items that users engaged with last."""

    model: TowerModel
    sequences: SequenceConfig
    events: int
    hours: float | None

    def embeddings(self, requests: Requests) -> NDArray[np.float32]:
        """[B, E, W], zeros behind a user's last."""
        model = self.model
        _, of = model.histories(requests, self.sequences)
        lengths = np.diff(of.offsets)
        from_end = np.repeat(of.offsets[1:], lengths) - np.arange(len(of))  # 1 the newest
        chosen = from_end <= self.events
        request = np.repeat(np.arange(len(requests)), lengths)
        if self.hours is not None:
            age = requests.moment[request] - of.timestamp
            chosen &= age <= self.hours * MILLISECONDS_PER_HOUR
        content = model.content[0]
        found = np.zeros((len(requests), self.events, content.shape[1]), np.float32)
        found[request[chosen], from_end[chosen] - 1] = content[of.item[chosen]]
        return found


@dataclass(frozen=True, eq=False)
class _Nearest:
    """Items by their largest product with one of a request's vectors.

    Attributes:
        model: embeds the items.
        name: of the source.
        known: which items can be shown, and what users have seen.
        quota: items of a request.
        vectors: [B, E, W] of requests, zeros for none.
    """

    model: TowerModel
    name: str
    known: Knowledge
    quota: int
    vectors: Callable[[Requests], NDArray[np.float32]]

    def find(self, requests: Requests) -> Offers:
        """Those that a user has not seen."""
        alive = self.known.alive
        rows = self.model.items[alive]  # [A, W]
        known = np.flatnonzero(rows.any(axis=1))
        alive, rows = alive[known], np.ascontiguousarray(rows[known].T)
        depth = min(DEPTH * self.quota, len(alive))
        vectors = self.vectors(requests)
        _, each, width = vectors.shape
        item = np.zeros((len(requests), depth), np.int64)
        score = np.zeros((len(requests), depth), np.float32)
        for start in range(0, len(requests), _USERS_AT_A_TIME):
            some = vectors[start : start + _USERS_AT_A_TIME]
            block = np.zeros((_USERS_AT_A_TIME, each, width), np.float32)
            block[: len(some)] = some
            products = (block.reshape(-1, width) @ rows).reshape(_USERS_AT_A_TIME, each, -1)
            there = (block != 0).any(axis=2)[:, :, None]
            best = np.where(there, products, -np.inf).max(axis=1)[: len(some)]
            top = highest(best, depth)
            item[start : start + len(some)] = alive[top]
            score[start : start + len(some)] = np.take_along_axis(best, top, axis=1)
        return unseen(self.known, requests, item, score, self.quota, np.isfinite(score))
