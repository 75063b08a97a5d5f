"""A data set kept up: appended to, compacted, and rid of a user."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live import LiveEvents
from recsys.embeddings.stores import open_store

START = 19_000 * DAY
FOREVER = 1 << 60


def write_log(path: Path, first_day: int, days: int) -> None:
    """Fifty impressions a day of ten users called u0 to u9."""
    rows = np.arange(50 * days)
    pl.DataFrame(
        {
            "user_id": [f"u{row % 10}" for row in rows],
            "item_id": rows % 7,
            "dwell_time": rows % 5,
            "timestamp": START + first_day * DAY + rows * (DAY // 50),
        }
    ).write_parquet(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data set ``mine`` of the log folder ``log``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # no cell of a table is cut
    (tmp_path / "log").mkdir()
    write_log(tmp_path / "log" / "1.parquet", 0, 10)
    assert invoke(["data", "prepare", "source=log", "path=log", "out=mine", "partitions=2"]) == 0
    return tmp_path


def test_preparing_says_what_became_of_the_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "prepare", "source=log", "path=log", "out=mine", "partitions=2"]
    capsys.readouterr()
    assert invoke(command) == 0
    assert "mine is prepared already; nothing was done." in capsys.readouterr().err
    log = pl.read_parquet("log/1.parquet")
    log.with_columns(action_type=pl.lit("teleport")).write_parquet("log/2.parquet")
    assert invoke([*command, "overwrite=true"]) == 0
    printed = capsys.readouterr()
    assert "prepared already" not in printed.err
    assert re.search(r"action_type is unknown +│ +500 │ mine/rejected ", printed.out)
    assert "2022-01-17T23:31:12+00:00" in printed.out
    assert (folder / "mine" / "rejected" / "action_type_is_unknown.parquet").is_file()


def test_an_append_prints_its_own_counts_and_where_its_rows_lie(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = pl.read_parquet("log/1.parquet").with_columns(action_type=pl.lit("impression"))
    bad = log[:5].with_columns(action_type=pl.lit("teleport"))
    pl.concat([log, bad]).write_parquet("log/1.parquet")
    command = ["data", "prepare", "source=log", "path=log", "out=mine", "partitions=2"]
    assert invoke([*command, "overwrite=true"]) == 0
    last = int(log["timestamp"].max())  # type: ignore[arg-type]
    new = log[:20].with_columns(timestamp=last + 1 + pl.int_range(20))
    worse = new[:2].with_columns(action_type=pl.lit("teleport"))
    pl.concat([log, bad, new, worse]).write_parquet("log/1.parquet")
    capsys.readouterr()
    assert invoke(["data", "append", "path=log", "out=mine", "partitions=2"]) == 0
    printed = capsys.readouterr().out
    aside = f"mine/rejected/after_{last}"
    assert re.search(rf"action_type is unknown +│ +2 │ {aside} ", printed)
    old = log.height + bad.height
    assert re.search(rf"not after the last event of the data set +│ +{old} │ counted only", printed)
    assert [path.name for path in Path(aside).iterdir()] == ["action_type_is_unknown.parquet"]
    assert pl.read_parquet(f"{aside}/action_type_is_unknown.parquet").height == 2
    assert DatasetManifest.load(folder / "mine").rejected["action_type is unknown"] == 7
    assert invoke(["data", "describe", "dataset=mine"]) == 0
    described = capsys.readouterr().out
    assert re.search(r"action_type is unknown +│ +7 │ rejected/ ", described)
    assert re.search(rf"last event of the data set +│ +{old} │ counted only", described)


def events_of(folder: Path, user: str) -> int:
    dataset = PreparedDataset.open(folder / "mine")
    table = dataset.vocabulary("user").table
    [index] = table.filter(pl.col("raw") == user)["index"].to_list()
    return sum(
        len(dataset.timelines.history(index, FOREVER, kind)["timestamp"]) for kind in TimelineKind
    )


def segments(folder: Path) -> int:
    return PreparedDataset.open(folder / "mine").timelines.num_segments


def publish_by_hand(location: str, users: list[str | int]) -> None:
    with open_store(location) as store:
        store.begin(timestamp=0, details={})
        store.put_many(users, np.ones((len(users), 2, 3), np.int64))
        store.commit()


def test_days_are_appended_and_compacted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["data", "prepare", "source=log", "path=log", "out=mine", "partitions=2"]
    write_log(folder / "log" / "2.parquet", 10, 1)
    assert invoke(again) == 2
    assert "Add new days by `recsys data append`" in capsys.readouterr().err
    assert invoke(["data", "append", "path=log", "out=mine", "partitions=2"]) == 0
    assert segments(folder) == 2
    assert events_of(folder, "u3") == 55
    assert invoke(["data", "compact", "dataset=mine"]) == 0
    assert "2 segments merged into 1" in capsys.readouterr().err
    assert segments(folder) == 1
    assert events_of(folder, "u3") == 55


def test_a_user_is_deleted_from_timelines_and_store(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_by_hand("store", ["u3", "u4"])
    command = ["data", "delete", "user=u3", "dataset=mine", "store=store"]
    assert invoke(command) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "User u3: 50 events removed from the timelines." in printed
    assert "User u3: removed from the store." in printed
    assert events_of(folder, "u3") == 0
    assert events_of(folder, "u4") == 50
    with open_store("store", readonly=True) as store:
        assert store.get("u3") is None
        assert store.get("u4") is not None
    assert invoke(command) == 0  # a deletion that was interrupted is run again
    printed = " ".join(capsys.readouterr().err.split())
    assert "User u3: 0 events removed" in printed and "User u3: not in the store." in printed


def test_a_user_is_deleted_from_live_events(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = PreparedDataset.open("mine")
    live = LiveEvents.open("live", dataset)
    user = dataset.vocabulary("user").indices_of(["u3", "u4"])
    last = dataset.manifest.counts["last_timestamp"]
    events = {"user": [user[0], user[1], user[0]], "item": [1, 1, 2], "action_type": [0, 0, 0]}
    live.append({**events, "timestamp": [last + 1, last + 2, last + 3]})
    live.close()
    delete = ["data", "delete", "user=u3"]
    assert invoke([*delete, "dataset=mine", "live=live"]) == 0
    assert "User u3: 2 live events removed." in capsys.readouterr().err
    live = LiveEvents.open("live", dataset)
    assert live.num_events(TimelineKind.IMPLICIT) == 1
    live.close()
    assert invoke([*delete, "dataset=mine", "live=lif"]) == 2
    assert "lif is no folder of live events" in capsys.readouterr().err
    assert not Path("lif").exists()
    assert invoke([*delete, "store=store", "live=live"]) == 2
    assert "live=live: give dataset=… too" in capsys.readouterr().err


@pytest.mark.parametrize("user", [42, "1e5", "null", "o'hara", "007"])
def test_an_id_is_taken_as_it_is_typed(
    user: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    publish_by_hand("store", [user, "other"])
    assert invoke(["data", "delete", f"user={user}", "store=store"]) == 0
    with open_store("store", readonly=True) as store:
        assert [one is None for one in store.get_many([user, "other"])] == [True, False]


def test_a_number_is_deleted_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    users: list[int | str] = [7, 2**64 - 1, "007"]
    publish_by_hand("store", users)
    for user, left in (("+7", 3), ("007", 2), ("18446744073709551615", 1), ("7", 0)):
        assert invoke(["data", "delete", f"user={user}", "store=store"]) == 0
        with open_store("store", readonly=True) as store:
            assert sum(one is not None for one in store.get_many(users)) == left
    log = "user_id,item_id,timestamp,action_type\n" + "".join(
        f"{7 + at % 2},{at % 5},{1_700_000_000_000 + at * 3_600_000},click\n" for at in range(40)
    )
    Path("log.csv").write_text(log)
    assert invoke(["data", "prepare", "data=log", "path=log.csv", "out=mine"]) == 0
    assert invoke(["data", "delete", "user=007", "dataset=mine"]) == 2
    assert "mine knows no user 007" in " ".join(capsys.readouterr().err.split())
    assert invoke(["data", "delete", "user=8", "dataset=mine"]) == 0


def test_deleting_from_one_of_the_two_leaves_the_other(folder: Path) -> None:
    publish_by_hand("store", ["u3"])
    assert invoke(["data", "delete", "user=u3", "dataset=mine"]) == 0
    with open_store("store", readonly=True) as store:
        assert store.get("u3") is not None
    assert events_of(folder, "u3") == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["user=u3"], "Give dataset=… to delete the user from timelines"),
        (["dataset=mine"], "`user=…` is needed"),
        (["user=nobody", "dataset=mine"], "mine knows no user nobody"),
        (["user=u3", "dataset=elsewhere"], "elsewhere is not a prepared data set"),
        (["user=u3", "dataset=mine", "store=nothing"], "nothing is no embedding store"),
    ],
)
def test_a_deletion_that_cannot_be_is_a_sentence_and_deletes_nothing(
    folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["data", "delete", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert events_of(folder, "u3") == 50
    assert not (folder / "nothing").exists()
