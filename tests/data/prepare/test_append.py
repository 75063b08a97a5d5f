"""Days appended: what they add is what preparing all of them at once has."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys
from recsys.cli.main import invoke
from recsys.cli.simulate import configure
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.contract.schema import Split, TimelineKind
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.simulator.files import read_description
from recsys.data.simulator.simulate import simulate
from recsys.data.stores.check import check_dataset
from recsys.data.stores.dataset import FEATURES, PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.tail import read_tail

START = 19_000 * DAY
BY_DAYS = {"choose_days": 1, "report_days": 1}


def steady(days: int, first: int = 0) -> pl.DataFrame:
    """An impression every three hours by user 9, so that every period has rows."""
    at = np.arange(8 * days)
    return pl.DataFrame(
        {
            "user_id": np.full(len(at), 9),
            "item_id": at % 5,
            "timestamp": START + first * DAY + at * 3 * HOUR,
            "action_type": "impression",
            "surface": "feed",
            "video_duration": (at % 4 + 1).astype(np.float32),
        }
    )


events = st.lists(
    st.tuples(
        st.integers(0, 3),  # user
        st.integers(0, 3),  # item
        st.integers(0, 6 * 48 - 1),  # half hour
        st.sampled_from(["impression", "impression", "click", "liked"]),
        st.sampled_from(["feed", "search"]),
        st.integers(0, 2),  # hours between request and impression
    ),
    max_size=60,
)


def frame_of(drawn: list[tuple[Any, ...]], requested: bool) -> pl.DataFrame:
    schema = {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64}
    schema |= {"action_type": pl.String, "surface": pl.String, "lag": pl.Int64}
    frame = pl.DataFrame(drawn, schema, orient="row").with_columns(
        START + pl.col("timestamp") * (HOUR // 2),
        video_duration=(pl.col("item_id") + 1).cast(pl.Float32),
    )
    log = pl.concat(
        [frame, steady(6).with_columns(lag=pl.lit(0, pl.Int64))], how="diagonal_relaxed"
    )
    if requested:
        log = log.with_columns(request_time=pl.col("timestamp") - pl.col("lag") * HOUR)
    return log.drop("lag").sample(fraction=1, shuffle=True, seed=1)


def rows_of(dataset: PreparedDataset) -> dict[str, list[tuple[Any, ...]]]:
    """Request rows by split, with raw ids and values; None for a category that is not known."""
    encoding = FeatureEncoding.load(dataset.path / FEATURES)
    users, items = (raw_ids(dataset, name) for name in ("user", "item"))
    names = [f.name for f in dataset.manifest.features if f.side == "context"]
    known = [[None, *encoding.categories[n]] for n in names if n in encoding.categories]
    mean, std = encoding.dense["video_duration"]
    found = {}
    for split in Split:
        store = dataset.requests(split)
        owner = np.repeat(np.arange(len(store)), np.diff(store.offsets))
        found[str(split)] = [
            (
                users[store.user[request]],
                int(store.request_time[request]),
                items[store.item[row]],
                tuple(store.labels[row].tolist()),
                round(float(store.context_dense[row, 0]) * std + mean, 3),
                [one[c] for one, c in zip(known, store.context_categorical[row], strict=True)],
            )
            for row, request in enumerate(owner)
        ]
    return found


def raw_ids(dataset: PreparedDataset, name: str) -> dict[int, Any]:
    return dict(dataset.vocabulary(name).table.select("index", "raw").iter_rows())


def events_of(dataset: PreparedDataset) -> list[tuple[Any, ...]]:
    users, items = raw_ids(dataset, "user"), raw_ids(dataset, "item")
    surfaces = dataset.manifest.surfaces
    return [
        (raw, str(kind), items[item], time, surfaces[surface])
        for index, raw in sorted(users.items())
        for kind in TimelineKind
        for history in [dataset.timelines.history(index, 1 << 60, kind)]
        for item, time, surface in zip(
            *(history[name].tolist() for name in ("item", "timestamp", "surface")), strict=True
        )
    ]


def written(path: Path, frame: pl.DataFrame) -> str:
    frame.write_parquet(path)
    return str(path)


@settings(max_examples=10, deadline=None)
@given(
    drawn=events,
    requested=st.booleans(),
    # days of three hours: each has an event of user 9
    cuts=st.lists(st.integers(24, 47), min_size=1, max_size=2, unique=True).map(sorted),
    rule=st.sampled_from([BY_DAYS, {}, {"attribution_hours": 50.0}]),
    together=st.booleans(),
)
def test_days_appended_are_days_prepared_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[Any, ...]],
    requested: bool,
    cuts: Sequence[int],
    rule: dict[str, Any],
    together: bool,
) -> None:
    """Events, rows and labels, whether the new days come alone or with the old ones."""
    folder = tmp_path_factory.mktemp("append")
    log = frame_of(drawn, requested)
    options = {"tasks": ["click", "liked"], **rule}
    days = written(folder / "all.parquet", log)
    prepare(PrepareConfig(path=days, out=str(folder / "whole"), partitions=2, options=options))
    moments = [START + cut * 3 * HOUR for cut in cuts]
    time = pl.col("timestamp")
    first = written(folder / "0.parquet", log.filter(time < moments[0]))
    out = str(folder / "grown")
    prepare(PrepareConfig(path=first, out=out, name="log", partitions=2, options=options))
    for number, (begin, end) in enumerate(zip(moments, [*moments[1:], 1 << 60], strict=True), 1):
        shown = time < end if together else time.is_between(begin, end, closed="left")
        day = written(folder / f"{number}.parquet", log.filter(shown))
        appended = append(AppendConfig(path=day, out=out, partitions=3))
        assert not appended.is_empty
    at_once, grown = (PreparedDataset.open(folder / name) for name in ("whole", "grown"))
    assert grown.manifest.generation == len(cuts)
    assert grown.manifest.split_bounds == at_once.manifest.split_bounds
    assert grown.manifest.counts == at_once.manifest.counts
    assert events_of(grown) == events_of(at_once)
    expected, found = rows_of(at_once), rows_of(grown)
    for split in Split:
        assert [row[:-1] for row in found[split]] == [row[:-1] for row in expected[split]]
        for (*_, known), (*_, all_known) in zip(found[split], expected[split], strict=True):
            assert all(one in (None, other) for one, other in zip(known, all_known, strict=True))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the data set ``mine`` of four steady days and some clicks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    clicks = steady(4)[:4].with_columns(pl.col("timestamp") + HOUR, action_type=pl.lit("click"))
    old = pl.concat([steady(4), clicks, visitor(4)])
    recsys.prepare(old, "mine", **BY_DAYS, attribution_hours=24)
    return tmp_path


def visitor(days: int) -> pl.DataFrame:
    """User 1 sees item 7 in the last hour of a log."""
    return steady(1)[:1].with_columns(
        user_id=pl.lit(1, pl.Int64),
        item_id=pl.lit(7, pl.Int64),
        timestamp=pl.lit(START + days * DAY - HOUR, pl.Int64),
    )


def click(user: int, item: int, moment: int, action: str = "click") -> pl.DataFrame:
    return steady(1)[:1].with_columns(
        user_id=pl.lit(user, pl.Int64),
        item_id=pl.lit(item, pl.Int64),
        timestamp=pl.lit(moment, pl.Int64),
        action_type=pl.lit(action),
    )


def labels_of(dataset: PreparedDataset, user: int, item: int) -> list[tuple[str, int, float]]:
    return [
        (split, time, labels[0])
        for split, rows in rows_of(dataset).items()
        for raw, time, shown, labels, *_ in rows
        if (raw, shown) == (user, item)
    ]


@pytest.mark.parametrize(("hours", "label"), [(23, 1.0), (25, 0.0)])
def test_an_action_of_the_new_day_counts_for_an_impression_of_the_old(
    mine: Path, hours: int, label: float
) -> None:
    shown = START + 4 * DAY - HOUR
    assert labels_of(recsys.open_dataset("mine"), 1, 7) == [("report", shown, 0.0)]
    new = pl.concat([steady(2, first=4), click(1, 7, shown + hours * HOUR)])
    config = AppendConfig(path=written(mine / "new.parquet", new), out="mine")
    appended = append(config)
    assert appended.rows.completed == {"click": int(label)}
    assert appended.rows.derived_again == 8 + 1  # those of the last day, and that one
    assert appended.rows.rows == {"fit": 0, "choose": 8, "report": 8}
    # two days later the row is trained on
    assert labels_of(recsys.open_dataset("mine"), 1, 7) == [("fit", shown, label)]


def test_nothing_new_is_said_and_changes_nothing(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(mine / "old.parquet", steady(3))
    made = (mine / "mine" / "dataset.json").stat().st_mtime_ns
    assert invoke(["data", "append", "out=mine", "path=old.parquet"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing is later than 2022-01-11T23:00:00+00:00; nothing was added" in said
    assert "(not after the last event of the data set: 24)." in said
    assert (mine / "mine" / "dataset.json").stat().st_mtime_ns == made


def test_it_prints_what_it_added_and_where_the_splits_went(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = pl.concat(
        [
            steady(1, first=4).with_columns(surface=pl.lit("search")),
            click(2, 3, START + 5 * DAY - HOUR),
            click(2, 3, START + 5 * DAY - HOUR, "teleport"),
        ]
    )
    written(mine / "new.parquet", new)
    assert invoke(["data", "append", "out=mine", "path=new.parquet"]) == 0
    printed = capsys.readouterr().out
    assert "log: mine, generation 1" in printed
    for name, count in {
        "events": 9,
        "explicit events": 1,
        "implicit events": 8,
        "users": 1,
        "items": 0,
        "request rows, in fit now": 0,
        "request rows, in report now": 8,
        "rows with a surface that the encoding does not know": 8,
    }.items():
        assert re.search(rf"│ {name} +│ +{count} │", printed), name
    assert re.search(r"choose +│ 2022-01-11T00:00:00\+00:00 │ 2022-01-12T00:00:00\+00:00", printed)
    last = START + 4 * DAY - HOUR
    assert re.search(rf"action_type is unknown +│ +1 │ mine/rejected/after_{last}", printed)


def test_explicit_bounds_stay_and_new_rows_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"fit_until": "2022-01-10", "choose_until": "2022-01-11", "tasks": ["click"]}
    before = recsys.prepare(steady(4), "mine", **options).manifest
    written(tmp_path / "new.parquet", steady(2, first=4))
    assert invoke(["data", "append", "out=mine", "path=new.parquet"]) == 0
    assert "all that has come is reported" in capsys.readouterr().err
    after = recsys.open_dataset("mine").manifest
    for split in ("fit", "choose"):
        assert after.split_bounds[split] == before.split_bounds[split]
        assert after.counts[f"rows_{split}"] == before.counts[f"rows_{split}"]
    assert after.counts["rows_report"] == before.counts["rows_report"] + 16


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"choose_days": 1}, "options.report_days is missing"),
        ({**BY_DAYS, "fit_until": "2022-01-10"}, "give the one or the other"),
        ({"choose_days": 2, "report_days": 2}, "found fit until 2022-01-08T00:00:00.*fewer days"),
    ],
)
def test_days_that_cannot_be_are_sentences(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        recsys.prepare(steady(4), tmp_path / "mine", tasks=["click"], **options)


def test_a_deleted_user_does_not_come_back(mine: Path) -> None:
    """Neither by labels that come later, nor where the old files are given again."""
    assert invoke(["data", "delete", "user=1", "dataset=mine"]) == 0
    dataset = recsys.open_dataset("mine")
    tails = pl.concat(read_tail(dataset.path, dataset.manifest))
    assert tails.height == 8 and 1 not in tails["user_id"]
    shown = START + 4 * DAY - HOUR
    new = pl.concat([steady(5), visitor(4), click(2, 7, shown + 2 * HOUR)])
    recsys.append(new, "mine")
    grown = recsys.open_dataset("mine")
    check_dataset(grown, anew=True)
    assert all(raw != 1 for raw, *_ in events_of(grown))
    assert labels_of(grown, 1, 7) == []


def test_what_is_given_must_be_what_the_data_set_was_prepared_with(mine: Path) -> None:
    new = steady(1, first=4)
    with pytest.raises(DataError, match=r"options\.attribution_hours is 3.0, it was 24.0\. Leave"):
        recsys.append(new, "mine", **BY_DAYS, attribution_hours=3)
    recsys.append(new, "mine", **BY_DAYS, attribution_hours=24)
    assert recsys.open_dataset("mine").manifest.generation == 1
    with pytest.raises(ConfigError, match="say which data set"):
        append(AppendConfig(path="new.parquet"))


def test_a_day_that_makes_a_split_empty_is_refused_and_nothing_changes(mine: Path) -> None:
    before = recsys.open_dataset("mine").manifest
    day = click(2, 3, START + 4 * DAY + HOUR)
    with pytest.raises(DataError, match=r"the report period .* has no request rows"):
        recsys.append(day, "mine")
    assert recsys.open_dataset("mine").manifest == before
    check_dataset(recsys.open_dataset("mine"), anew=True)


def test_rows_of_a_source_of_its_own_are_appended_too(tmp_path: Path) -> None:
    """A simulation cut in two: what comes with the whole one are the later rows."""
    config = configure(
        [
            *("simulator=demo", "simulator.users=20", "simulator.catalogue.items=500"),
            *("simulator.catalogue.authors=100", f"out={tmp_path / 'whole'}"),
        ]
    )
    simulate(config.simulator, Path(config.out))
    shutil.copytree(tmp_path / "whole", tmp_path / "first")
    bounds = read_description(tmp_path / "whole")["split_bounds"]
    cut = sum(bounds["report"]) // 2
    for folder, name in (("log", "timestamp"), ("requests", "request_time")):
        for part in (tmp_path / "first" / folder).glob("*.parquet"):
            pl.read_parquet(part).filter(pl.col(name) < cut).write_parquet(part)
    whole, out = str(tmp_path / "mine_whole"), str(tmp_path / "mine")
    prepare(PrepareConfig("simulated", str(tmp_path / "whole"), out=whole, partitions=2))
    prepare(PrepareConfig("simulated", str(tmp_path / "first"), out=out, partitions=2))
    appended = append(AppendConfig(path=str(tmp_path / "whole"), out=out, partitions=2))
    at_once, grown = PreparedDataset.open(whole), PreparedDataset.open(out)
    for split in Split:
        expected, found = at_once.requests(split), grown.requests(split)
        assert found.request_time.tolist() == expected.request_time.tolist()
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.best_absolute is not None and expected.best_absolute is not None
        np.testing.assert_array_equal(found.best_absolute, expected.best_absolute)
    assert appended.rows.rows["report"] > 0 and appended.rows.derived_again == 0
    assert grown.manifest.counts == at_once.manifest.counts
