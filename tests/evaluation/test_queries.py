"""Queries are those of the data module, in its order, and cut where it cuts."""

from __future__ import annotations

import numpy as np

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.cold_start import StandInConfig, popular_stand_ins
from recsys.evaluation.queries import EvaluationQueries, EventsByTime
from tests.data.sequence_data import MakeDataset
from tests.evaluation.engagements import HOUR

#: The report period is [200, 300) ms; users 1 and 2 have ties at 210.
EVENTS = [(1, 3, 10), (1, 4, 150), (1, 5, 210), (1, 6, 210), (2, 7, 210), (3, 8, 205), (3, 9, 250)]


def batches_of(data: SequenceDataModule) -> list[SequenceBatch]:
    return list(data.loader("report", shuffle=False))


def test_queries_are_those_of_the_data_module(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(EVENTS)
    store = EngagementStore.open(dataset, SequenceConfig())
    data = SequenceDataModule(SequenceLoaderConfig(batch_size=2), dataset, store)
    queries = EvaluationQueries.of_period(store, *dataset.manifest.split_bounds["report"])
    batches = batches_of(data)
    query_id = np.concatenate([batch.query_id.numpy() for batch in batches])
    assert sorted(query_id.tolist()) == list(range(len(queries))) == list(range(5))
    for field, column in {
        "user": "user",
        "request_time": "time",
        "label_item": "target",
        "lengths": "history_events",
    }.items():
        values = np.concatenate([getattr(batch, field).numpy() for batch in batches])
        assert values.tolist() == getattr(queries, column)[query_id].tolist(), field
    items = np.concatenate([batch.item.numpy() for batch in batches])
    _, position = queries.only(query_id).history(slice(0, len(queries)))
    assert items.tolist() == store.item[position].tolist()


def test_stand_ins_fill_the_batches_of_the_data_module(make_dataset: MakeDataset) -> None:
    """The same log an hour later: its first events are popular by the time of the queries."""
    early = [(4, 1, 20), (5, 1, 30), (6, 2, 40)]
    dataset = make_dataset([*early, (1, 3, HOUR + 5), (7, 4, HOUR + 7)])
    store = EngagementStore.open(dataset, SequenceConfig())
    queries = EvaluationQueries.of_period(store, HOUR, 2 * HOUR)
    groups = np.zeros(8, dtype=np.int64)
    config = StandInConfig(fill_to=5)
    stand_ins = popular_stand_ins(EventsByTime.of(store), store, queries, groups, config)
    data = SequenceDataModule(SequenceLoaderConfig(), dataset, store)
    batch = data.reader.read(
        queries.user,
        queries.time,
        queries.history_end,
        label_lengths=np.ones(2, np.int64),
        label_item=queries.target,
        query_id=np.arange(2),
    )
    filled = stand_ins.prepend_to(batch, store)
    assert batch.lengths.tolist() == [0, 0]
    assert filled.lengths.tolist() == [2, 2] and filled.item.tolist() == [1, 2, 1, 2]
    assert (filled.timestamp < filled.request_time.repeat_interleave(filled.lengths)).all()
