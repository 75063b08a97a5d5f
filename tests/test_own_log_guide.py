"""docs/own_log.md: its description is one that commands take, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from recsys.data.contract.parquet import read_parquet
from recsys.data.prepare.prepare import PrepareConfig

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "own_log.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_description_is_one(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    assert PrepareConfig.read_file(tmp_path / "shop.yaml")["name"] == "shop"


def test_columns_of_0_and_1_become_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {"user": [1, 2], "is_click": [0, 1], "is_like": [1, 1], "item": [7, 8]}
    pl.DataFrame(columns).write_csv("impressions.csv")
    exec(compile(blocks("python")[0], "own_log.md", "exec"), {})
    rows = read_parquet(Path("events.parquet")).sort("user", "action").rows()
    assert rows == [
        (1, 7, "impression"),
        (1, 7, "is_like"),
        (2, 8, "impression"),
        (2, 8, "is_click"),
        (2, 8, "is_like"),
    ]
