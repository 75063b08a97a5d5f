"""Ids through a preparation: none is merged with another, none is lost, and a log whose rows
mostly cannot be used is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError, RecsysError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split, TimelineKind
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset

START = 1_700_000_000_000
HOUR = 3_600_000
UNSIGNED = pl.Series("user_id", [2**63, 2**64 - 1, 5] * 10, pl.UInt64)


def day(number: int = 0, rows: int = 30, **columns: object) -> pl.DataFrame:
    """A day's log: users 7, 8, 9, ten items, all clicks an hour apart."""
    at = np.arange(rows)
    return pl.DataFrame(
        {
            "user_id": 7 + at % 3,
            "item_id": at % 10,
            "timestamp": START + (100 * number + at) * HOUR,
            "action_type": ["click"] * rows,
        }
    ).with_columns(**columns)  # type: ignore[arg-type]


def padded(column: str) -> pl.Expr:
    return "00" + pl.col(column).cast(pl.String)


def text(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String)


def write(folder: Path, **frames: pl.DataFrame) -> Path:
    """Frames as files of a folder: ``csv1`` is 1.csv, any other name a Parquet file."""
    folder.mkdir()
    for name, frame in frames.items():
        if name.startswith("csv"):
            frame.write_csv(folder / f"{name.removeprefix('csv')}.csv")
        else:
            frame.write_parquet(folder / f"{name}.parquet")
    return folder


def prepared(path: Path, out: Path, **settings: object) -> PreparedDataset:
    prepare(PrepareConfig(path=str(path), out=str(out), partitions=2, **settings))  # type: ignore[arg-type]
    return PreparedDataset.open(out)


def appended(path: Path, out: Path) -> PreparedDataset:
    append(AppendConfig(path=str(path), out=str(out), partitions=2))
    return PreparedDataset.open(out)


def events_of(dataset: PreparedDataset, user: str) -> int:
    [index] = dataset.vocabulary("user").indices_of([user])
    history = dataset.timelines.history(int(index), 2**62, TimelineKind.EXPLICIT, 10_000)
    return len(history["timestamp"])


@pytest.mark.parametrize("first", ["csv1", "csv9"])  # whichever file comes first
def test_names_that_read_as_one_number_stay_two_users(tmp_path: Path, first: str) -> None:
    names = {first: day(), "csv5": day(1, user_id=padded("user_id"), item_id=padded("item_id"))}
    dataset = prepared(write(tmp_path / "log", **names), tmp_path / "out")
    users = dataset.vocabulary("user").table["raw"]
    assert sorted(users) == ["007", "008", "009", "7", "8", "9"]
    assert dataset.manifest.counts["items"] == 20
    assert [events_of(dataset, user) for user in ("7", "007", "07")] == [10, 10, 0]


def test_a_name_in_a_late_chunk_makes_all_text(tmp_path: Path) -> None:
    rows = day(rows=60).with_columns(user_id=text("user_id"))
    rows[59, "user_id"] = "007"
    rows.write_csv(tmp_path / "log.csv")
    dataset = prepared(tmp_path / "log.csv", tmp_path / "out", options={"chunk_rows": 7})
    assert sorted(dataset.vocabulary("user").table["raw"]) == ["007", "7", "8", "9"]


@pytest.mark.parametrize("column", ["user_id", "item_id", "author_id"])
def test_text_appended_to_numbers_is_a_sentence(tmp_path: Path, column: str) -> None:
    old, new = day(author_id=pl.col("item_id")), day(1, author_id=pl.col("item_id"))
    out = tmp_path / "out"
    before = prepared(write(tmp_path / "a", csv1=old), out).manifest
    for name, frame in {"csv1": padded(column), "parquet": text(column)}.items():
        log = write(tmp_path / name, **{name: new.with_columns(**{column: frame})})
        with pytest.raises(DataError, match=f"{column} holds the text '.*are whole numbers"):
            appended(log, out)
    assert DatasetManifest.load(out) == before


@pytest.mark.parametrize(
    ("old", "new", "users"),
    [
        (day(user_id=padded("user_id")), day(1), ["007", "008", "009", "7", "8", "9"]),
        (day(), day(1, user_id=pl.col("user_id").cast(pl.Int16)), [7, 8, 9]),
        (day(user_id=UNSIGNED), day(1), [5, 7, 8, 9, 2**63, 2**64 - 1]),
        (day(user_id=text("user_id")), day(1, user_id=UNSIGNED), None),
        (day(user_id=UNSIGNED), day(1, user_id=-pl.col("user_id")), "holds -7"),
        (day(), day(1, user_id=UNSIGNED), f"holds {2**63}"),
    ],
)
def test_appended_numbers_are_kept_or_refused(
    tmp_path: Path, old: pl.DataFrame, new: pl.DataFrame, users: list | str | None
) -> None:
    out = tmp_path / "out"
    prepared(write(tmp_path / "a", old=old), out)
    log = write(tmp_path / "b", new=new)
    if isinstance(users, str):
        with pytest.raises(DataError, match=f"user_id {users}, the ids of this data set are whole"):
            appended(log, out)
        return
    dataset = appended(log, out)
    found = sorted(dataset.vocabulary("user").table["raw"])
    assert found == users or (users is None and {str(2**63), "7"} <= set(found))
    assert dataset.manifest.counts["events"] == 60


def test_a_column_of_text_may_come_and_go_over_days(tmp_path: Path) -> None:
    names = {"user_id": "u" + text("user_id"), "item_id": "i" + text("item_id")}
    authored = day(0, author_id=pl.lit("anna"), **names)
    out = tmp_path / "out"
    prepared(write(tmp_path / "a", day=day(0, **names)), out)  # text ids and no author at all
    appended(write(tmp_path / "b", day=authored.with_columns(day(1)["timestamp"])), out)
    last = day(2, author_id=pl.lit(None, pl.String), **names)
    dataset = appended(write(tmp_path / "c", day=last), out)
    assert dataset.manifest.counts["events"] == 90
    assert dataset.vocabulary("author").table["raw"].to_list() == ["anna"]
    author = dataset.item_features.categorical[1:, 1]
    assert dataset.vocabulary("author").indices(pl.Series(["anna"]))[0] in author


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_files_may_differ_in_what_they_may_have(tmp_path: Path, names: tuple[str, str]) -> None:
    """A column that one file lacks costs no row, whichever file comes first."""
    shown = {"action_type": pl.lit("impression"), "dwell_time": pl.col("item_id") + 0.5}
    plain = day(0, rows=60, **shown)
    times = pl.from_epoch("timestamp", "ms")
    rich = day(1, rows=60, **shown, surface=pl.lit("feed"), request_time=pl.col("timestamp") - HOUR)
    rich = rich.with_columns(timestamp=times, topic_id=pl.lit("t"))
    dataset = prepared(
        write(tmp_path / "log", **dict(zip(names, (plain, rich), strict=True))), tmp_path / "out"
    )
    counts = dataset.manifest.counts
    assert (counts["events"], dataset.manifest.rejected) == (120, {})
    requested = np.concatenate([dataset.requests(split).request_time for split in Split])
    first = START + 100 * HOUR - HOUR
    assert sorted(requested) == [*(START + np.arange(60) * HOUR), *(first + np.arange(60) * HOUR)]


@pytest.mark.parametrize("mode", ["dictionary", "hashed"])
@pytest.mark.parametrize("form", ["csv1", "parquet"])
def test_unsigned_ids_are_ids(tmp_path: Path, mode: str, form: str) -> None:
    log = write(tmp_path / "log", **{form: day(user_id=UNSIGNED, item_id=UNSIGNED)})
    dataset = prepared(log, tmp_path / "out", ids=mode, hash_buckets=1_000)
    users = dataset.vocabulary("user")
    assert sorted(users.table["raw"]) == [5, 2**63, 2**64 - 1]
    assert dataset.manifest.rejected == {} and events_of(dataset, str(2**63)) == 10
    asked = pl.Series([2**64 - 1, 5, 4], dtype=pl.UInt64)
    assert users.indices(asked).to_list() == users.indices(asked.cast(pl.String)).to_list()
    assert users.indices(pl.Series([-1, 5])).to_list() == [0, users.indices_of(["5"])[0]]


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({"user_id": [None, None, 7]}, "user_id is null: 20"),
        ({"timestamp": [3, 4, START]}, "timestamp is out of range: 20"),
        ({"action_type": ["view", "view", "click"]}, "action_type is unknown: 20"),
        ({"dwell_time": [-1.0, -2.0, 1.0]}, "dwell_time is negative: 20"),
        (
            {"dwell_time": [1.0, -2.0, 1.0], "user_id": [None, 7, 7]},
            "user_id is null: 10, dwell_time is negative: 10",
        ),
    ],
)
def test_more_than_half_bad_rows_are_refused_for_whatever_reasons(
    tmp_path: Path, columns: dict[str, list], reasons: str
) -> None:
    changes = {name: pl.Series(name, values * 10) for name, values in columns.items()}
    log = write(tmp_path / "log", day=day(**changes))
    with pytest.raises(DataError, match=rf"20 of 30 rows .* cannot be used \({reasons}\)"):
        prepared(log, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    good = day(1, rows=10)  # 20 of 40 is no more than half
    good.write_parquet(log / "good.parquet")
    dataset = prepared(log, tmp_path / "out")
    assert dataset.manifest.counts["events"] == 20


def test_rows_of_old_days_do_not_count_when_days_are_appended(tmp_path: Path) -> None:
    undated = day(timestamp=pl.when(pl.col("item_id") < 5).then("timestamp"))
    log, out = write(tmp_path / "log", old=undated), tmp_path / "out"
    prepared(log, out)
    day(1, rows=5).write_parquet(log / "new.parquet")  # the 15 undated ones are in the folder again
    assert appended(log, out).manifest.counts["events"] == 20
    bad = day(3, timestamp=pl.when(pl.col("item_id") < 3).then("timestamp"))
    with pytest.raises(DataError, match=r"21 of 30 rows .*\(timestamp is null: 21"):
        appended(write(tmp_path / "bad", day=bad), out)


def test_a_folder_named_like_a_pattern_is_another_one(tmp_path: Path) -> None:
    for name, users in (("i1", "other"), ("i[1]", "own"), ("a*b", "own"), ("axb", "other")):
        root = tmp_path / name
        root.mkdir()
        dataset = prepared(
            write(root / "log", a=day(user_id=pl.lit(users)), csv2=day(1, user_id=pl.lit(users))),
            root / "out",
        )
        assert dataset.vocabulary("user").table["raw"].to_list() == [users]
    assert PreparedDataset.open(tmp_path / "i[1]" / "out").vocabulary("user").table.height == 1


def repeated_column(path: Path) -> None:
    table = day().to_arrow()
    pq.write_table(table.append_column("item_id", table["user_id"]), path / "log.parquet")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (day(timestamp=pl.lit(5).cast(pl.Time)), "column timestamp: found Time values, which name"),
        (day(timestamp=pl.duration(hours="item_id")), "column timestamp: found Duration"),
        (day(timestamp=pl.lit(float("nan"))), "column timestamp: expected a whole number .* nan"),
        (b"user_id,item_id,timestamp,item_id\n1,2,1700000000000,3\n", "2 columns named item_id"),
        (repeated_column, "has 2 columns named item_id"),
        (b"user_id,item_id,timestamp\r1,2,1700000000000\r", "carriage return alone"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b'"user_id,item_id\n', "has no column user_id"),
        (day().write_csv().encode("utf-16"), "is not UTF-8 text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_meant_is_a_sentence(
    tmp_path: Path, content: object, sentence: str
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    if isinstance(content, pl.DataFrame):
        content.write_parquet(log / "log.parquet")
    elif isinstance(content, bytes):
        (log / "log.csv").write_bytes(content)
    else:
        content(log)  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"log\.\w+.*{sentence}"):
        prepared(log, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"columns": {"user_id": "item_id"}}, "item_id of the log would be both user_id and item"),
        ({"columns": {"author_id": "a", "topic_id": "a"}}, "a of the log would be both author_id"),
        ({"actions": {"liked": "x"}}, r"did you mean options\.actions\.x=liked"),
        ({"split": "last", "tasks": ["click"]}, r"options\.tasks belongs to a split by time"),
        (
            {"split": "users", "fit_until": "2024-01-01"},
            r"options\.fit_until belongs to a split",
        ),
        ({"columns": {"timestamp": None}}, r"set options\.split=last or options\.split=users"),
        ({"columns": {"item_id": None}}, "item_id is null; name the column"),
        ({"default_action": "read"}, "default_action=read is no known action type"),
        ({"time_zone": "Mars"}, r"options\.time_zone=Mars is no known time zone"),
        ({"time_unit": "h"}, "time_unit"),
        ({"tasks": []}, "options.tasks is empty"),
        ({"tasks": ["click", "click"]}, "click stands there twice"),
    ],
)
def test_options_that_cannot_be_meant_are_sentences(
    tmp_path: Path, options: dict, sentence: str
) -> None:
    log = write(tmp_path / "log", day=day(a=pl.lit(1)))
    with pytest.raises((ConfigError, DataError), match=sentence):
        prepared(log, tmp_path / "out", options=options)


def test_repeated_columns_that_are_not_read_do_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    table = day().to_arrow()
    for _ in range(2):
        table = table.append_column("note", table["item_id"])
    pq.write_table(table, log / "log.parquet")
    content = day(1).write_csv().replace("\n", ",,\n")  # as a spreadsheet leaves them
    (log / "log.csv").write_text(content)
    assert prepared(log, tmp_path / "out").manifest.counts["events"] == 60


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_of_a_parquet_file_is_a_sentence_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "log.parquet"
    names = day(user_id="ü" + text("user_id"), author_id=text("item_id"))
    names.write_parquet(path, compression=data.draw(st.sampled_from(["zstd", "uncompressed"])))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        prepared(path, folder / "out")
    except RecsysError as error:
        assert "log.parquet" in str(error) or "rows of the log" in str(error)


def test_what_the_libraries_stumble_over_is_said_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*arguments: object) -> None:
        raise pl.exceptions.SchemaError("types do not match")

    log = write(tmp_path / "log", day=day())
    monkeypatch.setattr("recsys.data.prepare.preparation.write_side", stumble)
    with pytest.raises(DataError, match=r"log holds what cannot be prepared \(SchemaError: types"):
        prepared(log, tmp_path / "out")
    assert not (tmp_path / "out").exists()
