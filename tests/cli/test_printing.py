"""Whatever titles, ids, columns, tasks and paths are called: it is shown as text."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.cli import checkpoint_inspect, prepare, recommend
from recsys.cli.main import invoke
from recsys.core.console import output_console
from recsys.data.prepare.describe import rejected_table
from recsys.distributed.planning import ModelPlan, ShardPlan, TablePlan
from recsys.evaluation.config import EvaluateConfig
from recsys.reports.page import closing_table
from recsys.reports.retrieval_tables import print_retrieval
from recsys.reports.task_tables import print_evaluation
from recsys.runs.checkpoint_tools import TensorLine
from recsys.runs.sharding_plan import dominating, plan_report
from recsys.studies.tables import markdown
from tests.core.test_console import NEWLINE, TEXTS, has_control
from tests.manifests import EMPTY

MEASURED = {"value": 0.5, "low": 0.4, "high": 0.6, "protocol": "by hand"}


def print_recommendations(text: str) -> None:
    text = text.encode(errors="replace").decode()  # a column holds no halves of characters
    columns = {"user_id": [text], f"title {text}": [text], "score": [0.5]}
    recommend._print(pl.DataFrame(columns, strict=False))


def print_prepared(text: str) -> None:
    manifest = replace(EMPTY, name=text, counts={text: 1, "last_timestamp": 0})
    output_console().print(prepare._counts_table(manifest, Path(text)))
    output_console().print(rejected_table({f"{text} is not a number": 3}, text, {text: 3}))


def print_metrics(text: str) -> None:
    task = text.replace("/", "")
    protocol = {**MEASURED, "protocol": text}
    metrics = {f"report/{name}/{task}": protocol for name in ("ne", "auc", "relative_ne_delta")}
    config = EvaluateConfig(text.strip() or "run", against=text.strip() or "run")
    print_evaluation(metrics, config)
    print_retrieval({"report/hits@10/all": {**protocol, "queries": 9}}, config)


def print_plan(text: str) -> None:
    table = TablePlan(f"tower.{text}", 2, 2, text, text, 1, 1.0, False, (ShardPlan(0, 2, 2, 9, 9),))
    plan = ModelPlan(1, 1, "cpu", 1, 0, (table,))
    for width in (200, 40):
        output_console().print(plan_report(plan, width))
    output_console().print(dominating(plan))


def print_tensors(text: str) -> None:
    line = TensorLine(text, text, (2, 3), text, 24, 1, 1)
    output_console().print(checkpoint_inspect._table([line]))


def print_closing(text: str) -> None:
    output_console().print(closing_table(text, {"run folder": text, text: "x"}))


PRINTERS = (
    *(print_recommendations, print_prepared, print_metrics, print_plan, print_tensors),
    print_closing,
)


def printed(command: Callable[[], object]) -> tuple[str, str]:
    output, messages = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(messages):
        command()
    return output.getvalue(), messages.getvalue()


@pytest.mark.parametrize("printer", PRINTERS, ids=lambda printer: printer.__name__)
@settings(max_examples=30)
@given(TEXTS)
@example("[/b] x")
@example("\x1b]0;gone\x07")
def test_tables_show_any_text(printer: Callable[[str], None], text: str) -> None:
    output, _ = printed(lambda: printer(text))
    assert not has_control(output)
    assert output


def test_a_title_stands_in_the_table_as_it_is() -> None:
    output, _ = printed(lambda: print_recommendations("[/b] \x1b]0;gone\x07"))
    assert r"[/b] \x1b]0;gone\x07" in output


@pytest.mark.parametrize(
    "words",
    [
        ("{}",),
        ("bench", "{}"),
        ("evaluate", "run_dir={}"),
        ("publish", "{}", "store={}"),
        ("checkpoint", "inspect", "path='{}'"),
    ],
    ids=" ".join,
)
@settings(max_examples=3)
@given(st.text(st.characters(exclude_characters="\0"), min_size=1), TEXTS)
@example("[/b]", "\x1b]0;gone\x07\nrecsys: all is well.")
def test_an_error_is_one_line_whatever_was_typed(
    words: tuple[str, ...], first: str, second: str
) -> None:
    """Also where it repeats what was typed."""
    typed = f"nowhere/{first}{second}".replace("\0", "")
    output, messages = printed(lambda: invoke([word.format(typed) for word in words]))
    assert not has_control(output + messages)
    assert messages.count(NEWLINE) == 1
    assert messages.startswith("recsys: ")


def test_a_terminal_without_the_letters_gets_their_numbers() -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(terminal), redirect_stderr(terminal):
        assert invoke(["日本"]) == 2
        print_recommendations("日本")
        terminal.flush()
    shown = terminal.buffer.getvalue()  # type: ignore[attr-defined]
    assert shown.count(rb"\u65e5\u672c") == 4  # the sentence, a heading, two cells


@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_a_table_of_a_page_keeps_its_lines_and_columns(cells: list[str]) -> None:
    lines = markdown([cells, cells]).split(NEWLINE)
    assert len(lines) == 3
    assert not has_control("".join(lines))
    for line in lines:
        assert line.replace(r"\|", "").count("|") == len(cells) + 1
