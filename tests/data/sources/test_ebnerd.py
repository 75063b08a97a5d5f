from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.contract.schema import ACTION_TYPES, TimelineKind
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.sources.days import OtherDays
from recsys.data.sources.ebnerd import EbnerdSource
from recsys.data.stores.dataset import PreparedDataset

TRAIN = datetime(2023, 5, 18, 7)
VALIDATION = TRAIN + timedelta(days=7)


def at(moment: datetime) -> int:
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)


def history(user: int, *visits: tuple[datetime, int, float, float | None]) -> dict:
    times, articles, reads, scrolls = (list(column) for column in zip(*visits, strict=True))
    return {
        "user_id": user,
        "impression_time_fixed": times,
        "scroll_percentage_fixed": scrolls,
        "article_id_fixed": articles,
        "read_time_fixed": reads,
    }


def behavior(
    user: int,
    time: datetime,
    in_view: list[int],
    clicked: list[int],
    next_read: float | None,
    page: tuple[int, float] | None = None,
) -> dict:
    return {
        "impression_id": 1,
        "article_id": page[0] if page else None,
        "impression_time": time,
        "read_time": page[1] if page else 3.0,
        "scroll_percentage": 50.0 if page else None,
        "device_type": 2,
        "article_ids_inview": in_view,
        "article_ids_clicked": clicked,
        "user_id": user,
        "is_sso_user": False,
        "gender": None,
        "postcode": None,
        "age": None,
        "is_subscriber": True,
        "session_id": 1,
        "next_read_time": next_read,
        "next_scroll_percentage": 100.0,
    }


def write(folder: Path, part: str, histories: list[dict], behaviors: list[dict]) -> None:
    (folder / part).mkdir(parents=True)
    lists = {
        "user_id": pl.UInt32,
        "impression_time_fixed": pl.List(pl.Datetime("us")),
        "scroll_percentage_fixed": pl.List(pl.Float32),
        "article_id_fixed": pl.List(pl.Int32),
        "read_time_fixed": pl.List(pl.Float32),
    }
    pl.DataFrame(histories, schema=lists).write_parquet(folder / part / "history.parquet")
    types = {
        "user_id": pl.UInt32,
        "article_id": pl.Int32,
        "gender": pl.Int8,
        "postcode": pl.Int8,
        "age": pl.Int8,
        "article_ids_inview": pl.List(pl.Int32),
        "article_ids_clicked": pl.List(pl.Int32),
        "next_read_time": pl.Float32,
        "scroll_percentage": pl.Float32,
    }
    frame = pl.DataFrame(behaviors, schema_overrides=types)
    frame.write_parquet(folder / part / "behaviors.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ebnerd"
    old = TRAIN - timedelta(days=10)
    click = TRAIN + timedelta(hours=1)
    visit = click + timedelta(minutes=2)
    choose = VALIDATION - timedelta(hours=3)
    report = VALIDATION + timedelta(hours=5)
    write(
        path,
        "train",
        [history(1, (old, 10, 4.0, 100.0), (old, 10, 6.0, None))],
        [
            # the click and the page it led to are one visit, known again from history
            behavior(1, click, [20, 21], [20], 33.0),
            behavior(1, visit, [22, 23], [23], 5.0, page=(20, 33.0)),
            # the same user and moment twice: one request
            behavior(2, choose, [30, 31], [31], 7.0),
            behavior(2, choose, [31, 32], [32], 8.0),
        ],
    )
    write(
        path,
        "validation",
        [history(1, (old, 10, 4.0, 100.0), (visit, 20, 33.0, 80.0))],
        # two clicks: nobody knows which of them was read for 9 seconds
        [behavior(1, report, [20, 40, 41], [40, 41], 9.0)],
    )
    return path


@pytest.fixture
def dataset(folder: Path, tmp_path: Path) -> PreparedDataset:
    out = tmp_path / "out"
    prepare(PrepareConfig(source="ebnerd", path=str(folder), out=str(out), partitions=2))
    return PreparedDataset.open(out)


def raw_ids(dataset: PreparedDataset, name: str) -> dict[int, int]:
    return dict(dataset.vocabulary(name).table.select("index", "raw").iter_rows())


def timeline(dataset: PreparedDataset, user: int, kind: TimelineKind) -> list[tuple]:
    index = {raw: index for index, raw in raw_ids(dataset, "user").items()}[user]
    found = dataset.timelines.history(index, 1 << 60, kind)
    items = [raw_ids(dataset, "item")[item] for item in found["item"].tolist()]
    column = "dwell_time" if kind is TimelineKind.IMPLICIT else "action_type"
    return list(zip(found["timestamp"].tolist(), items, found[column].tolist(), strict=True))


def test_each_reading_enters_once_from_whichever_file(dataset: PreparedDataset) -> None:
    old = at(TRAIN - timedelta(days=10))
    visit = at(TRAIN + timedelta(hours=1, minutes=2))
    report = at(VALIDATION + timedelta(hours=5))
    implicit = timeline(dataset, 1, TimelineKind.IMPLICIT)
    assert implicit[:3] == [(old, 10, 6.0), (visit, 20, 33.0), (visit, 23, 5.0)]
    assert {(time, item) for time, item, _ in implicit[3:]} == {(report, 40), (report, 41)}
    assert np.isnan([dwell for *_, dwell in implicit[3:]]).all()


def test_readings_are_clicks_and_read_to_the_end_long_views(dataset: PreparedDataset) -> None:
    old = at(TRAIN - timedelta(days=10))
    click, long_view = ACTION_TYPES.index("click"), ACTION_TYPES.index("long_view")
    explicit = timeline(dataset, 1, TimelineKind.EXPLICIT)
    assert sorted(explicit[:2]) == [(old, 10, click), (old, 10, long_view)]
    clicks = [(time, item) for time, item, action in explicit if action == click]
    assert clicks == [(t, i) for t, i, _ in timeline(dataset, 1, TimelineKind.IMPLICIT)]


def test_rows_merge_by_user_and_time_and_carry_click_and_read_time(
    dataset: PreparedDataset,
) -> None:
    counts = dataset.manifest.counts
    assert [counts[f"requests_{split}"] for split in ("fit", "choose", "report")] == [2, 1, 1]
    items = raw_ids(dataset, "item")
    choose = dataset.requests("choose")
    rows = dict(zip([items[i] for i in choose.item], choose.labels.tolist(), strict=True))
    assert sorted(rows) == [30, 31, 32]
    assert rows[31] == [1.0, 7.0] and rows[32] == [1.0, 8.0]
    assert rows[30][0] == 0.0 and np.isnan(rows[30][1])
    report = dataset.requests("report")
    assert sorted(report.labels[:, 0].tolist()) == [0.0, 1.0, 1.0]
    assert np.isnan(report.labels[:, 1]).all()


def test_the_choose_day_is_the_last_of_the_train_week(dataset: PreparedDataset) -> None:
    bounds = dataset.manifest.split_bounds
    assert bounds["fit"] == (at(TRAIN + timedelta(hours=1)), at(VALIDATION - timedelta(hours=19)))
    assert bounds["report"][0] == at(VALIDATION + timedelta(hours=5))


def test_other_splits_than_the_weeks(folder: Path) -> None:
    options = OtherDays(choose_from="2023-05-23T07:00:00", report_until="2023-05-26")
    bounds = EbnerdSource(folder, options).split_bounds
    weeks = EbnerdSource(folder).split_bounds
    assert bounds["fit"] == (weeks["fit"][0], at(VALIDATION - timedelta(days=2)))
    assert bounds["choose"] == (bounds["fit"][1], weeks["report"][0])
    assert bounds["report"] == (weeks["report"][0], at(datetime(2023, 5, 26)))


def test_articles_give_topics_where_their_file_is_there(folder: Path, tmp_path: Path) -> None:
    articles = {"article_id": [10, 20, 99], "category": [118, 142, 118]}
    pl.DataFrame(articles).write_parquet(folder / "articles.parquet")
    out = tmp_path / "out"
    prepare(PrepareConfig(source="ebnerd", path=str(folder), out=str(out)))
    dataset = PreparedDataset.open(out)
    topics = raw_ids(dataset, "topic")
    assert sorted(topics.values()) == [118, 142]
    items = raw_ids(dataset, "item")
    topic = {items[row[0]]: row[2] for row in dataset.item_features.categorical[1:].tolist()}
    assert topics[topic[10]] == 118 and topics[topic[20]] == 142 and topic[40] == 0
    user = {raw: index for index, raw in raw_ids(dataset, "user").items()}[1]
    history = dataset.timelines.history(user, 1 << 60, TimelineKind.IMPLICIT)
    assert topics[history["topic"][0]] == 118


def test_a_missing_file_says_where_its_owners_publish_it(folder: Path) -> None:
    (folder / "validation" / "history.parquet").unlink()
    with pytest.raises(DataError, match=r"history.parquet is missing.*recsys\.eb\.dk.*path="):
        EbnerdSource(folder).files()


def test_a_truncated_file_is_a_sentence(folder: Path) -> None:
    path = folder / "train" / "behaviors.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a complete Parquet file"):
        EbnerdSource(folder).files()


@pytest.mark.parametrize(
    ("part", "name", "change", "sentence"),
    [
        ("train", "behaviors", pl.lit("noon").alias("impression_time"), "expected datetimes, f"),
        ("train", "behaviors", pl.col("article_ids_inview").list.first(), "lists of whole numbers"),
        ("train", "behaviors", pl.lit("old").alias("age"), "age: expected numbers, found String"),
        ("validation", "history", pl.col("user_id").cast(pl.String), "user_id: expected whole"),
        (
            "validation",
            "history",
            pl.col("impression_time_fixed").cast(pl.List(pl.Int64)),
            "expected lists of datetimes",
        ),
    ],
)
def test_a_column_of_another_type_is_a_sentence(
    folder: Path, tmp_path: Path, part: str, name: str, change: pl.Expr, sentence: str
) -> None:
    path = folder / part / f"{name}.parquet"
    pl.read_parquet(path).with_columns(change).write_parquet(path)
    with pytest.raises(DataError, match=sentence) as error:
        prepare(PrepareConfig(source="ebnerd", path=str(folder), out=str(tmp_path / "out")))
    assert str(path) in str(error.value)


def test_a_missing_column_is_a_sentence(folder: Path) -> None:
    path = folder / "train" / "behaviors.parquet"
    pl.read_parquet(path).drop("next_read_time").write_parquet(path)
    with pytest.raises(DataError, match="has no column next_read_time"):
        EbnerdSource(folder).files()


def test_the_real_demo(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "ebnerd_demo"
    if not folder.is_dir():
        pytest.skip(f"{data_dir} holds no ebnerd_demo")
    out = tmp_path / "out"
    manifest = prepare(PrepareConfig(source="ebnerd", data_dir=str(data_dir), out=str(out)))
    behaviors = {
        part: pl.read_parquet(folder / part / "behaviors.parquet")
        for part in ("train", "validation")
    }
    assert manifest.counts["requests_report"] == behaviors["validation"].height
    keys = behaviors["train"].select("user_id", "impression_time").n_unique()
    assert manifest.counts["requests_fit"] + manifest.counts["requests_choose"] == keys
    dataset = PreparedDataset.open(out)
    report = dataset.requests("report")
    found = dataset.timelines.histories(
        report.user[:500], report.request_time[:500], TimelineKind.IMPLICIT
    )
    cutoffs = np.repeat(report.request_time[:500], found["lengths"])
    assert len(cutoffs) and (found["timestamp"] < cutoffs).all()
    readings = pl.DataFrame({"request": np.repeat(np.arange(500), found["lengths"])}).with_columns(
        item=pl.Series(found["item"]), time=pl.Series(found["timestamp"])
    )
    assert readings.n_unique() == readings.height
