"""`recsys recur status`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from recsys.core.composition import compose
from recsys.core.console import message_console, output_console, text_table
from recsys.core.folders import check_file
from recsys.recurring.config import StatusConfig
from recsys.recurring.generations import Generations
from recsys.recurring.status import MADE_BY, rows, sentences, tables, write_page
from recsys.reports.page import is_page_of


def run(overrides: Sequence[str]) -> None:
    """Print every generation, and write the page that was asked for."""
    config = compose("recur_status", StatusConfig, overrides)
    generations = Generations(Path(config.folder))
    generations.check()
    out = None if config.out is None else Path(config.out)
    if out is not None:
        check_file(out, partial(is_page_of, made_by=MADE_BY))
    print_status(generations)
    if out is not None:
        write_page(generations.folder, rows(generations), out)
        message_console().print(f"Page: {out}")


def print_status(generations: Generations, newest: int | None = None) -> None:
    """Print what became of each generation, or of the newest ones alone."""
    found, console = rows(generations), output_console()
    shown = found if newest is None else found[-newest:]
    for title, table in tables(shown).items():
        console.print(text_table(title, table))
    for sentence in sentences(found):
        console.print(sentence)
