"""`recsys funnel explain`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.core.bounds import Count, Settings
from recsys.core.composition import compose
from recsys.core.console import output_console, text_table
from recsys.serving.funnel.ledger import describe, explain


@dataclass(frozen=True)
class ExplainConfig(Settings):
    """Which request is explained.

    Attributes:
        ledger: folder of the ledger.
        request: its number.
        rows: candidates that are shown, at most.
    """

    ledger: str
    request: int
    rows: Count = 50


def run(overrides: Sequence[str]) -> None:
    """Print the candidates of a request: those of the list, then by how far they came."""
    config = compose("funnel_explain", ExplainConfig, overrides)
    ledger = Path(config.ledger)
    found = explain(ledger, config.request)
    # ten tasks are too wide for a terminal; `explain` in Python has them
    shown = found.drop(describe(ledger).tasks).head(config.rows)
    title = f"Request {config.request}: {len(shown):,} of {len(found):,} candidates"
    rows = [shown.columns]
    rows += [[_text(value) for value in row] for row in shown.iter_rows()]
    output_console().print(text_table(title, rows))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)
