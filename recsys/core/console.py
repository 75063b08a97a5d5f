"""Tables in the terminal."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table

#: Stands for a number that is not defined.
UNDEFINED = "-"

#: Width of tables that go into a file or a pipe.
WIDTH = 180


def output_console() -> Console:
    """Standard output, ``WIDTH`` wide where it goes into a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def text_table(title: str, rows: list[list[str]]) -> Table:
    """Headings and rows as a table for the terminal; all but the first column to the right."""
    # narrow gaps, so that six metrics with their intervals fit 80 columns and no number is split
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for position, heading in enumerate(rows[0]):
        # in a narrow terminal an interval goes to the next line instead of being cut off
        table.add_column(
            heading, justify="right" if position else "left", no_wrap=not position, overflow="fold"
        )
    for row in rows[1:]:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table
