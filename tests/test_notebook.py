"""Every cell of the notebook that ships, run in its order in an empty folder."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "own_log.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cell shows last is there as Jupyter would show it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    shown = [run("".join(c["source"]), names) for c in cells if c["cell_type"] == "code"]
    assert sum(isinstance(one, pl.DataFrame) for one in shown) >= 3
    assert {"user_id", "rank", "item_id", "title"} <= set(names["best"].columns)
    model, popular = (
        names["metrics"][f"report/{name}"]["value"]
        for name in ("hits@10/all", "fit_popularity/hits@10/all")
    )
    assert model > 2 * popular, "the log has something to learn, and it is learnt"


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line, where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)
