"""Requests with items that nobody has shown beside those of the log, of which a teacher may speak.

Legend: B requests, n items drawn for each.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import Number
from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.batches.request_reader import RequestDataset, RequestRows
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.schema import Split
from recsys.data.loaders.ranking import RankingDataModule, RankingLoaderConfig
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.fit_vocabulary import FitVocabulary


@dataclass(frozen=True)
class UnlabelledLoaderConfig(RankingLoaderConfig):
    """How requests are read and put into batches.

    Attributes:
        unlabelled: n, items of the fit period that are drawn for each request in training.
    """

    unlabelled: Annotated[int, Number(at_least=0, at_most=10_000)] = 4


class WithUnlabelled(RequestDataset[RankingBatch]):
    """The requests of the fit split, each with items whose labels nobody knows at its end.

    What is drawn follows from the seed and the requests of the batch, so a training that goes on
    draws the same.

    Args:
        dataset: the prepared data set.
        reader: reads users and items.
        config: seed, and how many.
    """

    def __init__(
        self, dataset: PreparedDataset, reader: RankingReader, config: UnlabelledLoaderConfig
    ) -> None:
        grouping = config.request_grouping
        super().__init__(dataset, Split.FIT, reader, request_grouping=grouping)
        self._items = FitVocabulary.of(dataset.manifest).sizes["item"]
        self._number, self._seed = config.unlabelled, config.seed

    def rows(self, positions: NDArray[np.int64]) -> RequestRows:
        """The stored rows of some requests, and those that are drawn."""
        stored = super().rows(positions)
        batch = zlib.crc32(np.ascontiguousarray(positions).tobytes())
        draw = np.random.default_rng([self._seed, batch])
        place = np.repeat(np.cumsum(stored.rows_per_request), self._number)  # before the next one
        item = draw.integers(1, max(self._items, 2), len(place))
        context = place - 1
        return RequestRows(
            user=stored.user,
            request_time=stored.request_time,
            rows_per_request=stored.rows_per_request + self._number,
            item=np.insert(stored.item, place, item.astype(stored.item.dtype)),
            context_categorical=np.insert(
                stored.context_categorical, place, stored.context_categorical[context], axis=0
            ),
            context_dense=np.insert(
                stored.context_dense, place, stored.context_dense[context], axis=0
            ),
            labels=np.insert(stored.labels, place, np.float32(np.nan), axis=0),
            row_id=np.insert(stored.row_id, place, -1),
        )


class UnlabelledDataModule(RankingDataModule):
    """Yields ``RankingBatch``, to train with rows whose labels are all NaN and whose id is −1."""

    def __init__(self, config: UnlabelledLoaderConfig, dataset: PreparedDataset) -> None:
        super().__init__(config, dataset)
        self._unlabelled = config

    def _requests(self, split: str) -> RequestDataset[RankingBatch]:
        if split == Split.FIT and self._unlabelled.unlabelled:
            return WithUnlabelled(self.dataset, self.reader, self._unlabelled)
        return super()._requests(split)
