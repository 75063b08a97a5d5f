"""docs/own_log.md: its description is one that commands take, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from recsys.data.prepare.prepare import PrepareConfig
from tests.own_logs import shop_log

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "own_log.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_description_is_one(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    assert PrepareConfig.read_file(tmp_path / "shop.yaml")["name"] == "shop"


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shop_log(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "own_log.md", "exec"), names)
    best = names["best"]
    assert best.group_by("user_id").len()["len"].to_list() == [5, 5]
    assert best["title"].null_count() == 0
