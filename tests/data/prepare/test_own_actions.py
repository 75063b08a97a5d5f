"""Logs whose actions have names of their own: what they mean, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.schema import ACTION_TYPES, Task
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.slices.families import EventKinds
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore

KIND = "description of a data set"
START = 1_714_521_600  # s
HOUR = 3_600
MEANINGS = {
    "VIEW": "impression",
    "like": "liked",
    "bookmark": "positive",
    "abuse": "negative",
    "ping": "ignore",
}
COLUMNS = {"user_id": "who", "item_id": "what", "timestamp": "at", "action_type": "did"}


def write(path: Path, rows: list[tuple[str, int, float, str | None]]) -> Path:
    frame = pl.DataFrame(rows, schema=["who", "what", "at", "did"], orient="row")
    frame.with_columns((pl.col("at") * HOUR + START).cast(pl.Int64)).write_csv(path)
    return path


def rows() -> list[tuple[str, int, float, str | None]]:
    """Twenty views an hour apart, each followed by something."""
    found: list[tuple[str, int, float, str | None]] = []
    for hour in range(20):
        user, item = f"u{hour % 3}", hour % 5
        found.append((user, item, hour, "VIEW"))
        did = ["like", "bookmark", "abuse", "ping", "odd"][hour % 5]
        found.append((user, item, hour + 0.5, did))
    return found


def prepared(path: Path, out: Path, is_later: bool = False, **options: object) -> PreparedDataset:
    settings = {"columns": COLUMNS, "time_unit": "s", "actions": MEANINGS} | options
    place: dict[str, Any] = {"path": str(path), "out": str(out), "options": settings}
    if is_later:
        append(AppendConfig(**place))
    else:
        prepare(PrepareConfig(**place))
    return PreparedDataset.open(out)


def test_own_actions_are_tasks_timelines_and_engagements(tmp_path: Path) -> None:
    dataset = prepared(write(tmp_path / "log.csv", rows()), tmp_path / "out")
    manifest = dataset.manifest
    assert manifest.action_types == (*ACTION_TYPES, "bookmark", "abuse")
    assert set(manifest.negative_actions) == {"hide", "skip", "abuse"}
    assert manifest.tasks == (Task("liked"), Task("bookmark"), Task("abuse"))
    assert manifest.unknown_actions == {"odd": 4}
    assert manifest.rejected == {"action_type is unknown": 4, "ignored action: ping": 4}
    assert manifest.counts["explicit_events"] == 12
    assert EventKinds.of(manifest).undwelled
    labels = dataset.requests("fit").labels
    assert labels.sum(axis=0).tolist() == [3, 3, 3]  # of fourteen views
    store = EngagementStore.open(dataset, SequenceConfig(repeats=True))
    codes = {manifest.action_types[code] for code in store.action_type}
    assert codes == {"liked", "bookmark"}
    only = EngagementStore.open(dataset, SequenceConfig(["abuse"], repeats=True))
    assert {manifest.action_types[code] for code in only.action_type} == {"abuse"}
    aside = pl.read_parquet(tmp_path / "out" / "rejected" / "action_type_is_unknown.parquet")
    assert aside["action_type"].to_list() == ["odd"] * 4


def test_a_task_may_have_hours_of_its_own(tmp_path: Path) -> None:
    late = [(f"u{n}", 1, n / 10, "VIEW") for n in range(20)]
    late += [(f"u{n}", 1, n / 10 + 30, "bookmark") for n in range(20)]
    late += [(f"u{n}", 1, n / 10 + 30, "like") for n in range(20)]
    log = write(tmp_path / "log.csv", late)
    day = "2024-05-01T01:00:00"
    bounds = {"fit_until": "2024-05-01T00:45:00", "choose_until": day}
    dataset = prepared(log, tmp_path / "out", task_hours={"bookmark": 48}, **bounds)
    assert dataset.requests("fit").labels.tolist() == [[0.0, 1.0]] * 8


def test_what_was_appended_may_bring_actions(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", rows())
    prepared(log, tmp_path / "out")
    shown = [("u1", 1, hour, "VIEW") for hour in range(20, 33)]
    new = [*shown, ("u1", 1, 30, "cart"), ("u1", 2, 31, "abuse"), ("u2", 2, 32, "odd")]
    write(log, [*rows(), *new])
    more = {"cart": "positive", **MEANINGS}
    grown = prepared(log, tmp_path / "out", is_later=True, actions=more)
    assert prepared(log, tmp_path / "out", actions=more).manifest == grown.manifest
    assert grown.manifest.action_types[len(ACTION_TYPES) :] == ("bookmark", "abuse", "cart")
    # the last row of before is bad, and later than the last event
    assert grown.manifest.unknown_actions == {"odd": 4 + 1 + 1}
    assert grown.manifest.tasks == (Task("liked"), Task("bookmark"), Task("abuse"))
    [last] = EngagementStore.open(grown, SequenceConfig(["cart"])).action_type.tolist()
    assert grown.manifest.action_types[last] == "cart"
    write(log, [*rows(), ("u1", 1, 40, "abuse")])
    with pytest.raises(DataError, match=r"options\.actions\.abuse is positive, it was negative"):
        prepared(log, tmp_path / "out", is_later=True, actions=more | {"abuse": "positive"})


def test_data_sets_of_before_have_the_known_actions(tmp_path: Path) -> None:
    prepared(write(tmp_path / "log.csv", rows()), tmp_path / "out", actions=MEANINGS)
    path = tmp_path / "out" / DATASET_FILE
    content = read_json(path, KIND, DataError, "")
    for name in ("action_types", "negative_actions", "unknown_actions", "times"):
        del content[name]
    del content["counts"]["implicit_events_without_dwell_time"]
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / DATASET_FILE, KIND, content)
    manifest = DatasetManifest.load(tmp_path / "old")
    assert manifest.action_types == ACTION_TYPES
    assert manifest.actions.positive == tuple(
        name for name in ACTION_TYPES if name not in ("impression", "hide", "skip")
    )
    assert manifest.has_times
    assert not EventKinds.of(manifest).undwelled
    content["source"] = "movielens"
    write_json(tmp_path / "old" / DATASET_FILE, KIND, content)
    assert not DatasetManifest.load(tmp_path / "old").has_times


def test_a_log_of_clicks_says_so_by_its_default(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    clicks = [(user, item, hour, None) for user, item, hour, did in rows() if did == "like"]
    write(path, clicks)
    with pytest.raises(DataError, match=r"all its rows are impressions.*options\.default_action"):
        prepared(path, tmp_path / "out")
    pl.read_csv(path).drop("did").write_csv(path)
    columns = {name: COLUMNS[name] for name in ("user_id", "item_id", "timestamp")}
    with pytest.raises(
        DataError,
        match=r"log\.csv has no column action_type or dwell_time.*options\.default_action=click",
    ):
        prepared(path, tmp_path / "out", columns=columns)
    dataset = prepared(path, tmp_path / "out", columns=columns, default_action="bookmark")
    assert dataset.manifest.counts["explicit_events"] == 4
    assert dataset.manifest.tasks == ()
    assert len(EngagementStore.open(dataset, SequenceConfig(["bookmark"], repeats=True))) == 4


def test_what_is_mostly_unknown_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", rows())
    with pytest.raises(
        DataError, match=r"Unknown names of actions: VIEW \(20\), .*options\.actions\.VIEW=<one of"
    ):
        prepared(path, tmp_path / "out", actions={"like": "liked"})
    # what is ignored on purpose is no sign of a log that is read in the wrong way
    ignored = dict.fromkeys(("VIEW", "ping", "abuse", "bookmark"), "ignore") | {"like": "click"}
    dataset = prepared(path, tmp_path / "out", actions=ignored | {"odd": "click"})
    assert dataset.manifest.counts["events"] == 8


def test_a_log_split_by_order_has_no_times(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", rows())
    dataset = prepared(path, tmp_path / "out", split="last")
    assert dataset.manifest.times == "order"
    assert dataset.manifest.tasks == ()
    assert SequenceConfig().on(dataset.manifest).has_times is False
    with pytest.raises(DataError, match="has no request rows"):
        dataset.requests("fit")
    write(path, [*rows(), ("u1", 1, 30, "like")])
    with pytest.raises(DataError, match=r"an order only.*overwrite=true"):
        prepared(path, tmp_path / "out", is_later=True, split="last")
