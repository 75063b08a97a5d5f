"""`recsys report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING
from rich.console import Console

from recsys.training.composition import compose
from recsys.training.load import load_config
from recsys.training.report.page import write_page
from recsys.training.systems import system_named


@dataclass(frozen=True)
class ReportConfig:
    """Which run to report on.

    Attributes:
        run_dir: the run folder.
        against: the run it was evaluated against.
        dataset: the prepared data set, where it was moved since the training.
    """

    run_dir: str = MISSING
    against: str | None = None
    dataset: str | None = None


def configure(overrides: Sequence[str]) -> ReportConfig:
    """Compose conf/report.yaml."""
    return compose("report", ReportConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Write report.html and print the closing table."""
    config = configure(overrides)
    folder = Path(config.run_dir)
    against = Path(config.against) if config.against is not None else None
    with Console(stderr=True).status("Writing the report"):
        system = system_named(load_config(folder).system)
        page = system.report(folder, against, config.dataset)
        write_page(page)
    Console().print(page.closing)
