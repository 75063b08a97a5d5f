"""Rows that stages learn from, of what a service has listed and was told of since."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.core.errors import DataError
from recsys.data.contract.schema import Column, Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.recurring.experience import Experience, of_last_hours, write_rows
from recsys.recurring.learned_rows import scored, shown
from recsys.service.config import ServeConfig
from recsys.service.messages import Event, Recommend
from recsys.service.worker import Worker
from recsys.serving.funnel.model import Numbering
from tests.service.small_service import prepare

HOUR = 3_600_000
REQUESTS = 24


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Worker, int, list[list]]:
    """A worker, when its first request was, and the items of its lists, one an hour."""
    folder = tmp_path_factory.mktemp("rows")
    prepared, funnel = prepare(folder), folder / "funnel.yaml"
    funnel.write_text("sources: {trending: {quota: 60}}\nvalue: {expression: p(liked)}\n")
    given = [f"state={folder / 'state'}", f"dataset={prepared}", f"funnel={funnel}"]
    assert invoke(["service", "swap", *given]) == 0
    worker = Worker(ServeConfig(state=str(folder / "state"), clock="log"))
    begin = worker.served.dataset.manifest.counts["last_timestamp"] + HOUR
    user = worker.served.some_users()[0]

    def event(item: object, moment: int, action: str, **more: object) -> Event:
        return Event(user, item, timestamp=moment, action=action, **more)

    async def ask() -> list[list]:
        lists = []
        for number in range(REQUESTS):
            now = begin + number * HOUR
            answer = await worker.recommend(Recommend(user=user, k=4, moment=now))
            first, second, third = answer.items[:3]
            impression = {"surface": "reels", "dwell_time": 7.5, "video_duration": 10.0}
            done = [
                event(first, now + 1_000, "impression", **impression),
                event(second, now + 2_000, "impression"),
                event(first, now + 3_000, "liked"),
                event(first, now + 4_000, "video_complete"),
                event(third, now + 5_000, "liked"),  # which nobody has seen
            ]
            assert (await worker.report(done)).taken == len(done)
            lists.append(answer.items)
        late = event(lists[0][1], begin + 25 * HOUR, "save")  # it is of no list any more
        assert (await worker.report([late])).taken == 1
        return lists

    lists = asyncio.run(ask())
    worker.close()
    return worker, begin, lists


def test_a_shown_item_is_labelled_by_what_followed(
    asked: tuple[Worker, int, list[list]], tmp_path: Path
) -> None:
    worker, begin, lists = asked
    of = experience(worker)
    rows = pl.concat(shown(of)).sort(Column.REQUEST_TIME, "item")
    index = worker.served.items.indices
    expected = {
        (begin + number * HOUR, int(item)): place
        for number, one in enumerate(lists)
        for place, item in enumerate(index(one[:2]))
    }
    found = dict(
        zip(rows.select(Column.REQUEST_TIME, "item").iter_rows(), rows.to_dicts(), strict=True)
    )
    assert found.keys() == expected.keys() and set(rows["user"]) == {1}
    dataset = worker.served.dataset
    for key, place in expected.items():
        row = found[key]
        assert row["label_liked"] == (place == 0) and row["label_save"] == 0
        assert row["label_watch_time"] == (7.5 if place == 0 else None)
        assert row["label_video_complete"] == (1 if place == 0 else None)
        assert np.isnan(row["propensity"])
    names = [one.name for one in dataset.manifest.features if one.name in rows.columns]
    assert {"surface", "position", "hour_of_day"} <= set(names)
    firsts = rows.filter(pl.col("label_liked") == 1)
    assert firsts["position"].n_unique() == 1 and firsts["surface"].n_unique() == 1
    assert set(firsts["position"]).isdisjoint(rows.filter(pl.col("label_liked") == 0)["position"])

    kept = of_last_hours([rows], 1_000, begin + 2 * HOUR)
    assert kept[Column.REQUEST_TIME].min() == begin + 2 * HOUR
    with pytest.raises(DataError, match="hold 3 requests of 3 h"):
        of_last_hours([rows], 3)
    tasks = dataset.manifest.tasks
    write_rows(of, kept, tasks, tmp_path / "data")
    written = PreparedDataset.open(tmp_path / "data")
    assert written.manifest.fingerprint == dataset.manifest.fingerprint
    rows_of = [written.requests(split).num_rows for split in Split]
    assert sum(rows_of) == kept.height and min(rows_of) > 0
    assert written.requests(Split.FIT).labels.shape[1] == len(tasks)
    assert written.requests(Split.REPORT).request_time.max() == begin + (REQUESTS - 1) * HOUR


def test_ledgers_of_other_numbers_give_the_same_rows(
    asked: tuple[Worker, int, list[list]],
) -> None:
    worker, *_ = asked
    of, own = experience(worker), Numbering.of(worker.served.dataset)
    # a ledger of a world has numbers of its own; here they happen to be the data set's
    other = Experience(of.dataset, of.ledgers, own)
    for rows in (scored, shown):
        one, same = (pl.concat(rows(each)) for each in (of, other))
        assert one.height and one.equals(same)
    nobody = Numbering(np.zeros_like(own.user), own.item)
    assert all(not part.height for part in scored(Experience(of.dataset, of.ledgers, nobody)))


def experience(worker: Worker) -> Experience:
    state = Path(worker.config.state)
    return Experience(worker.served.dataset, sorted((state / "ledger").iterdir()))
