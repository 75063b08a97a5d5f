"""`recsys publish`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from recsys.data.moments import to_text
from recsys.export.publish import PublishConfig, publish
from recsys.training.composition import compose
from recsys.training.report.outcome import PUBLICATION_FILE


def configure(overrides: Sequence[str]) -> PublishConfig:
    """Compose conf/publish.yaml."""
    return compose("publish", PublishConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Publish, note the outcome in the run folder, and print it."""
    config = configure(overrides)
    outcome = asdict(publish(config))
    if config.run_dir is not None:
        text = json.dumps(outcome, indent=2) + "\n"
        (Path(config.run_dir) / PUBLICATION_FILE).write_text(text)
    table = Table(title="Published user embeddings", show_header=False)
    for name, value in outcome.items():
        table.add_row(name.replace("_", " "), _text(name, value))
    Console().print(table)


def _text(name: str, value: object) -> str:
    if name == "as_of" and isinstance(value, int):
        return to_text(value)
    if name == "version" or isinstance(value, str):
        return str(value)
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
