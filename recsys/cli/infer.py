"""`recsys data infer`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.data.infer.draft import Draft
from recsys.data.infer.draft_text import reason
from recsys.data.infer.infer import InferConfig, infer
from recsys.data.infer.sayable import OPEN


def configure(overrides: Sequence[str]) -> InferConfig:
    """Compose conf/infer.yaml."""
    return compose("infer", InferConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Draft the description, show what it says and why, and name the next command."""
    found = infer(configure(overrides))
    draft, console = found.draft, output_console()
    console.print(_facts_table(draft))
    console.print(_columns_table(draft))
    if draft.log.meanings:
        console.print(_actions_table(draft))
    if draft.default_action is not None:
        action, why = draft.default_action
        console.print(f"Action of rows that name none: {action} ({why}).")
    options = ", ".join(f"{key}={value}" for key, value in draft.splitting.options.items())
    console.print(f"Split: {options} ({draft.splitting.why}).")
    for sentence in draft.odd:
        console.print(f"Note: {sentence}")
    console.print(f"Written: {found.file}")
    if draft.open:
        console.print(f"Fill in {', '.join(draft.open)}, where it says {OPEN}; then:")
    else:
        console.print("Read it, change what is wrong; then:")
    console.print(*(f"  {command}" for command in found.next), sep="\n")


def _facts_table(draft: Draft) -> Table:
    table = Table("what", "found", title=f"{draft.name}: {draft.log.path}", title_justify="left")
    for name, value in draft.facts:
        table.add_row(name, value)
    return table


def _columns_table(draft: Draft) -> Table:
    """Every column of the log and of its tables, and what it is taken for."""
    table = Table("of", "column", "taken for", "why", title="Columns", title_justify="left")
    for row in _column_rows(draft):
        table.add_row(*row)
    return table


def _column_rows(draft: Draft) -> Iterator[tuple[str, str, str, str]]:
    for name, choice in draft.columns.items():
        yield "log", choice.column or "-", name, reason(choice)
    for name in draft.log.flags:
        yield "log", name, "flag", "0 or 1: whether it came of the row's item"
    for name, why in draft.left_out:
        yield "log", name, "-", why
    for key, side in (("items", draft.items), ("users", draft.users)):
        if side is None:
            continue
        if side.match is not None:
            share = f"{side.match.ids:.1%} of the log's {key}, {side.match.rows:.1%} of its rows"
            yield key, side.match.column, "id", f"has those of {share}"
        for one in side.columns:
            if one.key is not None or side.path is not None:
                yield key, one.column, one.key or "-", one.why


def _actions_table(draft: Draft) -> Table:
    table = Table("action", title="Actions", title_justify="left")
    table.add_column("rows", justify="right")
    table.add_column("means")
    table.add_column("why")
    for one in draft.log.meanings:
        table.add_row(one.name, f"{one.rows:,}", one.meaning, one.why)
    return table
