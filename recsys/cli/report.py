"""`recsys report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from recsys.core.bounds import Settings
from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.core.errors import ConfigError
from recsys.core.folders import locked_folder
from recsys.data.stores.copies import with_local_folders
from recsys.evaluation.predictions import PREDICTIONS
from recsys.reports.page import write_page
from recsys.runs.load import check_run_folder
from recsys.systems.choice import system_of_run


@dataclass(frozen=True)
class ReportConfig(Settings):
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
    config = with_local_folders(configure(overrides), "run_dir", "against", "dataset")
    folder = Path(config.run_dir)
    against = Path(config.against) if config.against is not None else None
    check_run_folder(folder)
    system = system_of_run(folder)
    if against is not None:
        check_run_folder(against)
        other = system_of_run(against)
        if other.name != system.name:
            raise ConfigError(
                f"{against} is a run of {other.name} and {folder} one of {system.name}: against= "
                "takes another run of the same system; leave it out, for the report shows what "
                "`recsys evaluate` compared anyway."
            )
    with (
        locked_folder(folder / PREDICTIONS),  # of one evaluation, as the metrics
        message_console().status("Writing the report"),
    ):
        page = system.report(folder, against, config.dataset)
        write_page(page)
    output_console().print(page.closing)
