"""The outcome of a sweep as sweep.md, sweep.png and a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.core.durable import replace_file, replaced_file
from recsys.studies.sweep.figure import save_figure
from recsys.studies.sweep.file import SweepFile, shell_command
from recsys.studies.sweep.trials import Trial, TrialState
from recsys.studies.tables import Rows, markdown, setting_cell, table


def write_outcome(file: SweepFile, trials: Sequence[Trial], folder: Path) -> None:
    """Write the page and the plot."""
    with replaced_file(folder / "sweep.png") as partial:
        save_figure(file, trials, partial)
    replace_file(folder / "sweep.md", page(file, trials).encode())


def print_outcome(file: SweepFile, trials: Sequence[Trial], folder: Path) -> None:
    """Print the table, the best trial's command, and where everything lies."""
    console = output_console()
    console.print(text_table(f"sweep {file.name}", table_rows(file, trials)))
    console.print(_caption(file), highlight=False)
    console.print("Best:", best_command(file, trials), markup=False, soft_wrap=True)
    names = ", ".join(str(folder / f"sweep.{ending}") for ending in ("md", "json", "png"))
    console.print(f"Written: {names}", highlight=False, soft_wrap=True)


def page(file: SweepFile, trials: Sequence[Trial]) -> str:
    """``sweep.md``."""
    parts = [
        f"# Sweep {file.name}",
        str(file.content.get("description", "")),
        _caption(file),
        markdown(table_rows(file, trials)),
        "![parameters of each trial and its value](sweep.png)",
        "The best trial again:",
        f"```console\n$ {best_command(file, trials)}\n```",
        *(f"{one.name} {one.state}: {one.problem}" for one in trials if one.problem is not None),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def ranked(file: SweepFile, trials: Sequence[Trial]) -> list[Trial]:
    """Trials whose value counts, the best first."""
    measured = [trial for trial in trials if trial.is_measured]
    return sorted(measured, key=lambda one: file.best(one.history), reverse=file.highest)


def best_command(file: SweepFile, trials: Sequence[Trial]) -> str:
    """The best trial as a line for the shell, in a new run folder."""
    return shell_command(file.settings, ranked(file, trials)[0].parameters)


def table_rows(file: SweepFile, trials: Sequence[Trial]) -> Rows:
    """Headings, then a row per trial: the best first, those without a value last."""
    lines = []
    for trial in [*ranked(file, trials), *(one for one in trials if not one.is_measured)]:
        seconds = f"{trial.training_seconds:,.0f}" if trial.training_seconds else UNDEFINED
        lines.append(
            [
                ("trial", trial.name),
                (file.metric, f"{file.best(trial.history):.4f}" if trial.history else UNDEFINED),
                *((name, setting_cell(trial.parameters.get(name))) for name in file.searched),
                ("validations", f"{len(trial.history)}"),
                ("training, s", seconds),
                ("state", str(trial.state)),
            ]
        )
    return table(lines)


def _caption(file: SweepFile) -> str:
    best = "highest" if file.highest else "lowest"
    stopped = (
        f" Trials {TrialState.STOPPED} were behind at a rung of Hyperband."
        if "early_terminate" in file.content
        else ""
    )
    return (
        f"{file.metric} on the choose split: the {best} of a trial's validations. A value chosen "
        "as the best of many is too good; `recsys evaluate` measures a run on the report split, "
        f"which no sweep reads.{stopped}"
    )
