"""`recsys sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.studies.sweep.file import SweepFile, check_settings, read_sweep
from recsys.studies.sweep.run import SweepConfig, run_sweep

_SWEEP_KEYS = {field.name for field in fields(SweepConfig)}


def configure(path: Path, overrides: Sequence[str]) -> tuple[SweepFile, SweepConfig]:
    """The sweep file and how it is run; settings that are none of a sweep's go to all trials."""
    own = [one for one in overrides if one.split("=", 1)[0] in _SWEEP_KEYS]
    of_trials = [one for one in overrides if one not in own]
    return read_sweep(path, of_trials), compose("sweep", SweepConfig, own)


def run(path: Path, overrides: Sequence[str], local: bool) -> None:
    """Run a sweep here, or check its file and say how wandb runs it."""
    file, config = configure(path, overrides)
    if local or config.dry_run:
        run_sweep(file, config)
        return
    check_settings(file)
    lines = (
        f"{path} fits wandb's format, and its parameters fit `recsys train`.",
        f"Here, without a server: recsys sweep {path} --local",
        f"With a server: wandb sweep {path}, then the `wandb agent …` that it prints.",
    )
    output_console().print(*lines, sep="\n")
