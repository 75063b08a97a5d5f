"""`recsys tune`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from recsys.core.composition import compose
from recsys.core.console import output_console, text_table
from recsys.online.tuning.config import TuneConfig
from recsys.online.tuning.points import POINTS
from recsys.online.tuning.trials import as_json
from recsys.online.tuning.tune import FUNNEL, tune
from recsys.reports.tuning import PAGE, sentences, tables, write_page


def configure(overrides: Sequence[str]) -> TuneConfig:
    """Compose conf/tune.yaml."""
    return compose("tune", TuneConfig, overrides)


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Play the trials, print what they came to, and write the page and the tuned funnel."""
    config = configure(overrides)
    found = tune(config)
    folder, console = Path(config.out), output_console()
    for title, rows in tables(found, config).items():
        console.print(text_table(title, rows))
    for sentence in sentences(found, config):
        console.print(sentence)
    write_page(found, config, folder)
    console.print(f"Page: {folder / PAGE}; tuned funnel: {folder / FUNNEL}")
    if (folder / POINTS).is_file():
        console.print(f"Operating points: {folder / POINTS}")
    if as_object:
        console.print(json.dumps(as_json(found, config.tuning)))
