"""`recsys funnel prefetcher`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from recsys.core.composition import compose
from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.serving.funnel.prefetch.train import PrefetcherConfig, Trained, train_prefetcher


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Train it, and print how good it is."""
    config = compose("funnel_prefetcher", PrefetcherConfig, overrides)
    found = train_prefetcher(config)
    console = output_console()
    title = f"The last {found.measured:,} of {found.opens:,} openings of the app"
    console.print(text_table(title, _rows(found)))
    if found.error is None:
        console.print("No wait is known: give cache.prefetch.latency_ms=0, so that none is asked.")
    console.print(f"Written: {config.out}")
    if as_object:
        console.print(json.dumps(asdict(found)))


def _rows(found: Trained) -> list[list[str]]:
    def number(value: float | None) -> str:
        return UNDEFINED if value is None else f"{value:.3f}"

    return [
        ["", "found", "expected, or of a constant"],
        ["share with a visit", number(found.visited), number(found.expected)],
        ["visit: AUC", number(found.auc), "0.500"],
        ["visit: normalised entropy", number(found.entropy), "1.000"],
        [f"ln(wait), error on {found.waits:,}", number(found.error), number(found.spread)],
    ]
