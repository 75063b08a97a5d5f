from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.contract.actions import ActionNames
from recsys.data.contract.log import LogReader, split_rows
from recsys.data.contract.rejected import DETAIL, REASON, RejectedRows
from recsys.data.contract.schema import LOG_SCHEMA

DAY = 1_700_000_000_000


def log_frame(**columns: list) -> pl.DataFrame:
    default = {
        "user_id": [1, 2, 3],
        "item_id": [10, 20, 30],
        "timestamp": [DAY, DAY + 1, DAY + 2],
    }
    return pl.DataFrame(default | columns)


def read(data: object, **options: object) -> pl.DataFrame:
    return pl.concat(list(LogReader(data, **options)))  # type: ignore[arg-type]


def reasons(data: object, **options: object) -> dict[str, int]:
    _, bad = split_rows(read(data, **options))
    return dict(bad[REASON].value_counts().iter_rows()) if bad.height else {}


def test_a_minimal_log_gets_every_column_of_the_contract() -> None:
    good, bad = split_rows(read(log_frame()))
    assert good.schema == LOG_SCHEMA
    assert bad.is_empty()
    assert good["action_type"].to_list() == ["impression"] * 3
    assert good["dwell_time"].null_count() == 3


@pytest.mark.parametrize("kind", ["parquet", "csv", "folder", "frame", "lazy"])
def test_every_form_of_a_log_reads_the_same(tmp_path: Path, kind: str) -> None:
    frame = log_frame(action_type=["click", None, "hide"], dwell_time=[None, 2.5, None])
    data: object = tmp_path / f"log.{kind}"
    if kind == "parquet":
        frame.write_parquet(data)
    elif kind == "csv":
        frame.write_csv(data)
    elif kind == "folder":
        data = tmp_path / "days"
        data.mkdir()
        frame[:2].write_parquet(data / "1.parquet")
        frame[2:].write_csv(data / "2.csv")
    else:
        data = frame if kind == "frame" else frame.lazy()
    good, bad = split_rows(read(data, chunk_rows=2))
    assert bad.is_empty()
    assert good.schema == LOG_SCHEMA
    assert good["action_type"].to_list() == ["click", "impression", "hide"]
    assert good["dwell_time"].to_list() == [None, 2.5, None]


def test_columns_and_actions_can_have_other_names() -> None:
    # a name that is given as it is anyway asks for nothing: the log has no topics
    frame = log_frame(action_type=["like", "view", "hide"]).rename({"item_id": "video"})
    actions = ActionNames({"like": "liked", "view": "impression", "click": "click"})
    good, bad = split_rows(
        read(frame, columns={"item_id": "video", "topic_id": "topic_id"}, actions=actions)
    )
    assert bad.is_empty()
    assert good["item_id"].to_list() == [10, 20, 30]
    assert good["action_type"].to_list() == ["liked", "impression", "hide"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user_id": [None, 2, 3]}, "user_id is null"),
        ({"item_id": [None, 2, 3]}, "item_id is null"),
        ({"user_id": ["", "b", "c"]}, "user_id is empty"),
        ({"item_id": ["a", "", "c"]}, "item_id is empty"),
        ({"timestamp": [None, DAY, DAY]}, "timestamp is null"),
        ({"timestamp": [DAY // 1000, DAY, DAY]}, "timestamp is in seconds"),
        ({"timestamp": [5, DAY, DAY]}, "timestamp is out of range"),
        ({"timestamp": [DAY * 1000, DAY, DAY]}, "timestamp is out of range"),
        ({"dwell_time": [-0.5, 1.0, None]}, "dwell_time is negative"),
        ({"dwell_time": [float("inf"), 1.0, None]}, "dwell_time is infinite"),
        ({"video_duration": [-0.5, 1.0, None]}, "video_duration is negative"),
        ({"action_type": ["teleport", "click", "hide"]}, "action_type is unknown"),
        ({"request_time": [DAY + 9, DAY, DAY]}, "request_time is after the event"),
    ],
)
def test_a_bad_row_is_set_apart_with_its_reason(columns: dict, reason: str) -> None:
    assert reasons(log_frame(**columns)) == {reason: 1}


@pytest.mark.parametrize("name", ["author_id", "topic_id", "media_type", "surface"])
@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_an_empty_string_is_unknown_where_a_value_may_be(name: str, dtype: pl.DataType) -> None:
    frame = log_frame(**{name: ["a", "", None]}).with_columns(pl.col(name).cast(dtype))
    good, bad = split_rows(read(frame))
    assert bad.is_empty()
    assert good[name].to_list() == ["a", None, None]


def test_nan_dwell_is_unknown_not_bad() -> None:
    good, bad = split_rows(read(log_frame(dwell_time=[float("nan"), 1.0, 2.0])))
    assert bad.is_empty()
    assert good["dwell_time"].to_list() == [None, 1.0, 2.0]


def test_a_value_that_is_no_number_is_set_apart_with_the_value(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,timestamp\n1,10,{DAY}\n2,20,yesterday\n3,30,{DAY}\n")
    _, bad = split_rows(read(path))
    assert bad[REASON].to_list() == ["timestamp is not a number"]
    assert bad[DETAIL].to_list() == ["yesterday"]


def test_string_ids_stay_strings_and_leading_zeros_survive(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,timestamp\n007,10,{DAY}\n12,20,{DAY}\n")
    frame = read(path)
    assert frame["user_id"].to_list() == ["007", "12"]
    assert frame["item_id"].to_list() == [10, 20]


def test_datetimes_are_read_as_utc() -> None:
    frame = log_frame().with_columns(pl.from_epoch("timestamp", "ms").cast(pl.Datetime("us")))
    assert read(frame)["timestamp"].to_list() == [DAY, DAY + 1, DAY + 2]


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (log_frame().drop("item_id"), "has no column item_id.*options.columns.item_id="),
        (
            log_frame(timestamp=[1_700_000_000, 1_700_000_001, DAY]),
            "column timestamp.*look like seconds.*set options.time_unit=s",
        ),
        (log_frame(user_id=[1.5, 2.0, 3.0]), "column user_id: ids are whole numbers or text"),
        (log_frame(dwell_time=["a", "b", "c"]), "column dwell_time: expected a number"),
        (log_frame(timestamp=["a", "b", "c"]), "column timestamp: expected a whole number of mil"),
        (log_frame().clear(), "holds no rows"),
    ],
)
def test_a_bad_file_is_a_sentence(tmp_path: Path, frame: pl.DataFrame, sentence: str) -> None:
    path = tmp_path / "log.parquet"
    frame.write_parquet(path)
    with pytest.raises(DataError, match=sentence) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_truncated_parquet_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    log_frame().write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"log\.parquet is not a complete Parquet file"):
        read(path)


def test_damage_in_the_middle_of_a_parquet_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    rows = 20_000
    frame = log_frame(user_id=list(range(rows)), item_id=[1] * rows, timestamp=[DAY] * rows)
    frame.write_parquet(path)
    content = bytearray(path.read_bytes())
    content[100:2100] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a complete Parquet file"):
        read(path)


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_an_empty_file_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path / name)


@pytest.mark.parametrize("line", [f"1,caf\xe9,{DAY}", None])
def test_a_csv_that_is_not_utf8_is_a_sentence(tmp_path: Path, line: str | None) -> None:
    header = "user_id,item_id,timestamp" + ("" if line else ",caf\xe9")
    text = f"{header}\n{line or f'1,2,{DAY},3'}\n"
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match="is not UTF-8 text; convert it"):
        read(path)


def test_a_csv_line_with_too_many_fields_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,timestamp\n1,2,{DAY}\n1,2,{DAY},5,6\n")
    with pytest.raises(DataError, match="not a table of comma-separated values"):
        read(path)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f"\ufeffuser_id,item_id,timestamp\n1,2,{DAY}\n".encode())
    assert read(path)["user_id"].to_list() == [1]


@pytest.mark.parametrize("name", ["absent.parquet", "notes.txt", "nothing"])
def test_a_path_without_a_log_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError):
        read(tmp_path / name)


def test_rejected_rows_are_counted_and_written_aside(tmp_path: Path) -> None:
    rejected = RejectedRows(tmp_path / "rejected")
    for frame in (log_frame(dwell_time=[-1.0, -2.0, 0.0]), log_frame(user_id=[None, 1, 2])):
        _, bad = split_rows(read(frame))
        rejected.add(bad)
    rejected.add(pl.DataFrame({"user_id": [5]}), "twice")
    rejected.close()
    assert rejected.counts == {"dwell_time is negative": 2, "user_id is null": 1, "twice": 1}
    written = pl.read_parquet(tmp_path / "rejected" / "dwell_time_is_negative.parquet")
    assert written["dwell_time"].to_list() == ["-1.0", "-2.0"]
    assert (tmp_path / "rejected" / "twice.parquet").is_file()
