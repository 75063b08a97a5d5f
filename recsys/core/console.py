"""The terminal: the one place that prints, so that text of others is printed as text.

Titles, ids, paths and columns come from files that somebody else has made. Whatever is printed here
is no markup, has its control characters made visible, and shows no secret; a string is one line.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import IO, Any

from rich import box
from rich.console import Console as RichConsole
from rich.console import ConsoleRenderable, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

from recsys.core.secrets import mask

#: Stands for a number that is not defined.
UNDEFINED = "-"

#: Width of tables that go into a file or a pipe.
WIDTH = 180

#: C0, DEL and C1; marks that turn the direction of a line or show nothing; separators of lines;
#: halves of characters, which no encoding has.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""A text on one line whose control characters stand there as in Python.

    >>> print(visible("a\x1b]0;b\n"))
    a\x1b]0;b\n
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_lines(text: str) -> str:
    """:func:`visible` for each line of a text that has several."""
    return "\n".join(map(visible, text.split("\n")))


class Console(RichConsole):
    """Prints strings, also those in tables, as they are.

    Args:
        stderr: print on standard error.
        file: print there instead.
        width: in characters; None for the terminal's.
    """

    def __init__(
        self, stderr: bool = False, file: IO[str] | None = None, width: int | None = None
    ) -> None:
        super().__init__(
            stderr=stderr, file=file, width=width, markup=False, emoji=False, highlight=False
        )

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """All strings that Rich is given come by here: what is printed, titles, headings, cells."""
        asked = {**options, "markup": False, "emoji": False, "highlight": False}
        return super().render_str(visible(mask(text)), **asked)

    def print(self, *objects: Any, sep: str = " ", end: str = "\n", **options: Any) -> None:
        """Print strings, which the terminal wraps and no file, or tables."""
        parts = [one if isinstance(one, ConsoleRenderable) else str(one) for one in objects]
        if all(isinstance(one, str) for one in parts):
            options = {"soft_wrap": True, **options}
        super().print(*parts, sep=sep, end=end, **options)

    def print_lines(self, text: str) -> None:
        """Print a text of several lines, such as a script."""
        self.print(*text.removesuffix("\n").split("\n"), sep="\n")

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Say what is being done, as long as it is."""
        return super().status(self.render_str(str(status)), **options)


def output_console(width: int = WIDTH) -> Console:
    """Standard output, for results; ``width`` wide where it goes into a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else width)


def message_console(width: int = WIDTH) -> Console:
    """Standard error, for everything else, so that standard output stays clean for results."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else width)


class _Description(ProgressColumn):
    """What is being done."""

    def render(self, task: Task) -> Text:
        """It, as text."""
        return Text(visible(mask(task.description)), style="progress.description")


def progress_bar() -> Progress:
    """Progress on standard error; what is printed meanwhile goes through its ``console``."""
    remaining = TimeRemainingColumn(elapsed_when_finished=True)
    console = message_console()
    return Progress(
        _Description(),
        BarColumn(),
        TaskProgressColumn(),
        remaining,
        console=console,
        disable=not _shows_bars(console),
    )


def _shows_bars(console: RichConsole) -> bool:
    """Whether bars can move; a log needs no line for each, and a notebook's need ipywidgets."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal


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
        table.add_row(*row)
    return table
