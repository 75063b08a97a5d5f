"""The benchmark of peers on one's own log: the log of every side, and how lists are measured."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from recsys.cli import bench

own_log = bench._load("own_log")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Thirty users of MovieLens' layout, who watch films in the order of their numbers."""
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "movies.dat").write_text("".join(f"{i}::Film (1990)::Drama\n" for i in range(1, 21)))
    (folder / "users.dat").write_text("".join(f"{u}::F::25::1::1\n" for u in range(1, 31)))
    lines = (f"{u}::{(u + i) % 20 + 1}::5::{i}\n" for u in range(1, 31) for i in range(12))
    (folder / "ratings.dat").write_text("".join(lines))
    return tmp_path


def test_the_log_keeps_the_order_and_no_two_events_share_a_time(data_dir: Path) -> None:
    log = own_log._log(own_log.Config(data_dir=str(data_dir), users=2)).sort("user_id", "timestamp")
    assert log["user_id"].to_list() == ["1"] * 12 + ["2"] * 12
    assert log["item_id"].to_list()[:3] == ["2", "3", "4"]
    assert log["timestamp"].diff().to_list()[1:12] == [1000] * 11


def test_quality_by_hand() -> None:
    target = pl.DataFrame({"user_id": ["a", "b", "c", "d"], "item_id": ["1", "2", "3", "4"]})
    best = pl.DataFrame(
        {
            "user_id": ["a", "b", "b", "c"],
            "item_id": ["1", "9", "2", "4"],
            "rank": [1, 1, 3, 1],
        }
    )
    quality = own_log._quality(best, target)
    assert quality["hits@10"]["value"] == 0.5  # a and b; d has no list
    assert quality["ndcg@10"]["value"] == pytest.approx((1 + 1 / math.log2(4)) / 4)
    assert quality["hits@10"]["low"] <= 0.5 <= quality["hits@10"]["high"]


def test_lines_are_those_that_hold_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '"""What it is."""\n\nimport os\n\n# why\nif os.sep:\n    print(\n        1\n    )\n'
    (tmp_path / "sasrec_by_replay.py").write_text(script)
    monkeypatch.setattr(own_log, "_SCRIPTS", tmp_path)
    assert own_log._written("replay") == "5 lines"


@pytest.mark.slow
def test_our_side_needs_no_more_than_its_three_commands(data_dir: Path) -> None:
    sizes = {"epochs": 1, "width": 8, "heads": 1, "max_length": 10, "batch_size": 8}
    config = own_log.Config(data_dir=str(data_dir), sides=("recsys",), **sizes)
    figures = own_log.run(config)["figures"]["recsys"]
    assert 0 <= figures["hits@10"]["value"] <= 1
    assert figures["written"] == "3 commands"
