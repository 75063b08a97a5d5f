"""Every block of docs/python.md, run in its order in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from recsys.cli.main import invoke

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(GUIDE.read_text())
    assert len(blocks) >= 10
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(GUIDE), "exec"), names)
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line.removeprefix("$ "))
            assert program == "recsys"
            progress = ["trainer.progress_bar=false"] * (words[0] == "train")
            assert invoke([*words, *progress]) == 0, line
