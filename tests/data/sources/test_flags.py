"""A row per impression, whose columns of 0 and 1 say what came of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.contract.files import read_table
from recsys.data.infer.infer import InferConfig, infer
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.sources.log import LogSource
from recsys.data.sources.log_options import LogOptions
from recsys.data.stores.dataset import PreparedDataset

START = 1_704_067_200_000
OPTIONS = LogOptions(
    flags=["is_click", "hated"], actions={"is_click": "click", "hated": "negative"}
)


def _log(**columns: list[object]) -> pl.DataFrame:
    rows = {"user_id": [1, 1, 2], "item_id": [7, 8, 9], "timestamp": [START, START + 1, START + 2]}
    return pl.DataFrame(rows | columns)


@pytest.mark.parametrize(
    ("clicks", "hated"),
    [([0, 1, 1], [1, 0, None]), ([False, True, True], ["TRUE", "false", ""])],
)
def test_a_flag_is_an_event_beside_its_row(clicks: list[object], hated: list[object]) -> None:
    [events] = LogSource(_log(is_click=clicks, hated=hated), OPTIONS).events()
    found = events.select("item_id", "timestamp", "action_type").rows()
    assert sorted(found) == [
        (7, START, "hated"),
        (7, START, "impression"),
        (8, START + 1, "click"),
        (8, START + 1, "impression"),
        (9, START + 2, "click"),
        (9, START + 2, "impression"),
    ]


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_it_stands_right_behind_its_row(chunk_rows: int) -> None:
    """Events of one moment keep the order of the log, however it is read in pieces."""
    log = _log(is_click=[1, 1, 1], hated=[1, 0, 1]).with_columns(timestamp=START)
    options = replace(OPTIONS, chunk_rows=chunk_rows)
    events = pl.concat(LogSource(log, options).events())
    assert events["action_type"].to_list() == (
        ["impression", "click", "hated", "impression", "click", "impression", "click", "hated"]
    )


def test_nan_is_no_flag() -> None:
    nan = float("nan")
    [events] = LogSource(_log(is_click=[nan, 1.0, None], hated=["nan", "", "1"]), OPTIONS).events()
    acted = events.filter(pl.col("action_type") != "impression")
    assert acted.select("item_id", "action_type").rows() == [(8, "click"), (9, "hated")]


def test_flags_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match=r"has no column hated .* columns of 0 and 1"):
        list(LogSource(_log(is_click=[0, 1, 0]), OPTIONS).events())
    with pytest.raises(DataError, match="column hated: expected a number of 0 and 1"):
        list(LogSource(_log(is_click=[0, 1, 0], hated=["no", "yes", "no"]), OPTIONS).events())


def test_infer_finds_them_and_the_draft_is_prepared(tmp_path: Path) -> None:
    rows = 600
    log = pl.DataFrame(
        {
            "user": [f"u{row % 50}" for row in range(rows)],
            "video": [f"v{row * 7 % 90}" for row in range(rows)],
            "time_ms": [START + row * 3_600_000 for row in range(rows)],
            "is_click": [row % 3 == 0 for row in range(rows)],
            "is_hate": [int(row % 10 == 0) for row in range(rows)],
        }
    )
    log.write_csv(tmp_path / "log.csv")
    infer(InferConfig(path=str(tmp_path / "log.csv"), out=str(tmp_path / "mine.yaml")))
    settings = PrepareConfig.read_file(tmp_path / "mine.yaml")
    assert settings["options"]["flags"] == ["is_click", "is_hate"]
    assert settings["options"]["actions"] == {"is_click": "click", "is_hate": "negative"}
    config = PrepareConfig(**settings | {"out": str(tmp_path / "prepared")})
    prepare(config)
    manifest = PreparedDataset.open(tmp_path / "prepared").manifest
    assert manifest.counts["implicit_events"] == rows
    assert manifest.counts["explicit_events"] == rows // 3 + rows // 10
    assert [task.name for task in manifest.tasks] == ["click", "is_hate"]


def test_semicolons_separate_columns_too(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('user_id;item_id;timestamp\n1;"a, b";5\n')
    schema = {"user_id": pl.Int64(), "item_id": pl.String(), "timestamp": pl.Int64()}
    assert read_table(tmp_path / "log.csv", schema).rows() == [(1, "a, b", 5)]
