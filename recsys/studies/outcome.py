"""The outcome of a study as study.md, study.json, study.png and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure

from recsys.core.console import output_console, text_table
from recsys.core.durable import replace_file, replaced_file
from recsys.core.json_files import write_json
from recsys.evaluation.metrics_file import without_nan
from recsys.studies.plan import StudyConfig
from recsys.studies.tables import Rows


@dataclass(frozen=True)
class Outcome:
    """What a study says, of either kind.

    Attributes:
        numbers: the dataclass that ``study.json`` holds.
        sections: paragraphs, tables and headings of the page, below its title.
        table: for the terminal.
        notes: sentences below it.
        figure: the plot.
    """

    numbers: Any
    sections: Sequence[str]
    table: Rows
    notes: Sequence[str]
    figure: Figure


def write_outcome(outcome: Outcome, config: StudyConfig) -> None:
    """Write the page, the numbers it stands on, and the plot."""
    config.folder.mkdir(parents=True, exist_ok=True)
    write_json(config.file("json"), "outcome of a study", without_nan(asdict(outcome.numbers)))
    page = "\n\n".join([f"# Study {config.title}", *outcome.sections])
    replace_file(config.file("md"), (page + "\n").encode())
    with replaced_file(config.file("png")) as partial:
        outcome.figure.savefig(partial, format="png", bbox_inches="tight")


def print_outcome(outcome: Outcome, config: StudyConfig) -> None:
    """Print the table and where everything lies."""
    console = output_console()
    console.print(text_table(f"study {config.title}", outcome.table))
    for note in (*outcome.notes, f"Written: {config.file('md')}, {config.file('json')}"):
        console.print(note, markup=False, highlight=False)
