"""Events that are given instead of those of the log, by what the log's description says."""

from __future__ import annotations

from pathlib import Path

import polars as pl

import recsys
from recsys.index.item_table import read_item_file
from recsys.serving.given_events import read_events

FIRST = 1_714_521_600_000


def test_actions_and_columns_are_those_of_the_description(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {
            "user_id": [number % 6 for number in range(120)],
            "sku": [number % 7 for number in range(120)],
            "timestamp": [FIRST + 21_600_000 * number for number in range(120)],
            "action_type": ["open", "impression", "ping"] * 40,
        }
    )
    said = {"columns": {"item_id": "sku"}, "actions": {"open": "click", "ping": "ignore"}}
    dataset = recsys.prepare(log, tmp_path / "prepared", **said)
    given = read_events("history", log[:9], dataset)
    assert given.ignored == 3 and len(given.table) == 6
    assert given.of_others(pl.Series(["0", "1"])) == 2
    (tmp_path / "gone.csv").write_text("sku\n3\n")
    assert read_item_file(str(tmp_path / "gone.csv"), dataset)["post_id"].to_list() == ["3"]
