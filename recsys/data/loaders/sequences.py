"""The Lightning DataModule of sequence models."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.errors import DataError
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.batches.sequences.queries import FitQueries, PeriodQueries, Queries
from recsys.data.batches.sequences.reader import SequenceDataset, SequenceReader
from recsys.data.contract.schema import Split
from recsys.data.loaders.sequence_sampling import SequenceBatchSampler
from recsys.data.loaders.split import BatchLoader, SplitDataModule, use_one_thread
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore


class SequenceDataModule(SplitDataModule):
    """Yields ``SequenceBatch``: one query per user to train, one per engagement to evaluate.

    Args:
        config: cuts and batches.
        dataset: the prepared data set.
        engagements: its sequences.
        max_queries: queries of choose and report at most, as ``PeriodQueries`` draws them.
        pools: columns whose distinct items the batches to train on are to have with them.
    """

    def __init__(
        self,
        config: SequenceLoaderConfig,
        dataset: PreparedDataset,
        engagements: EngagementStore,
        max_queries: int | None = None,
        pools: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.pools = pools
        self.config = config
        self.max_queries = max_queries
        self.dataset = dataset
        self.engagements = engagements
        self.reader = SequenceReader(dataset, engagements, config.max_length)

    def queries(self, split: str) -> Queries:
        """The queries of a split: ``query_id`` of an evaluated batch is the position in them.

        Raises:
            DataError: there are none.
        """
        first, last = self.dataset.manifest.split_bounds[split]
        if split == Split.FIT:
            queries: Queries = FitQueries(self.engagements, (first, last), self.config)
            wanted = f"user has {self.config.min_events} engagements before the end of the fit"
            if self.config.only_fit_labels:
                wanted += f" period, one of them in the {split}"
        else:
            queries = PeriodQueries(self.engagements, first, last, self.max_queries)
            wanted = f"engagement lies in the {split}"
        if not len(queries):
            raise DataError(
                f"no {wanted} period of {self.dataset.manifest.name}; move the bounds of the "
                "splits, or count other actions as engagements."
            )
        return queries

    def sequences(self, split: str) -> SequenceDataset:
        """The batches of a split by their queries.

        Raises:
            DataError: the split has no query.
        """
        pools = self.pools if split == Split.FIT else ()
        return SequenceDataset(self.reader, self.queries(split), self.config, pools)

    def loader(self, split: str, *, shuffle: bool) -> BatchLoader:
        """Batches of one split, this rank's share of them.

        Raises:
            DataError: the split has no query.
            ConfigError: the trainer would shard the batches once more.
        """
        config = self.config
        sequences = self.sequences(split)
        rank, num_ranks = self._place()
        return BatchLoader(
            sequences,
            batch_size=None,  # the sampler gives whole batches
            sampler=SequenceBatchSampler(
                sequences, config, shuffle=shuffle, rank=rank, num_ranks=num_ranks
            ),
            num_workers=config.num_workers,
            pin_memory=self._pins(config.pin_memory),
            worker_init_fn=use_one_thread,
        )
