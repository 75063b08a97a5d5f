"""`recsys funnel adjuster`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from recsys.core.composition import compose
from recsys.core.console import output_console, text_table
from recsys.serving.funnel.cache.distil import AdjusterConfig, Distilled, distil


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Train it, and print how far it is from fresh scores."""
    config = compose("funnel_adjuster", AdjusterConfig, overrides)
    found = distil(config)
    console = output_console()
    console.print(text_table(_title(found), _rows(found)))
    kept = [task for task, trees in found.tasks.items() if not trees]
    if kept:
        console.print(f"Stale scores are as good, and kept, for {', '.join(kept)}.")
    console.print(f"Written: {config.out}")
    if as_object:
        console.print(json.dumps(asdict(found)))


def _title(found: Distilled) -> str:
    return (
        f"Root mean square error of {found.gaps[-1].samples:,} of {found.samples:,} samples, those "
        "of the last requests, in % of the mean fresh score"
    )


def _rows(found: Distilled) -> list[list[str]]:
    *gaps, whole = found.gaps
    named = [(f"up to {one.hours:g} hours" if one.hours else "longer", one) for one in gaps]
    rows = [["gap", "samples", "stale", "adjusted"]]
    for name, one in [*named, ("all", whole)]:
        errors = (f"{100 * one.stale:.2f}", f"{100 * one.adjusted:.2f}")
        rows.append([name, f"{one.samples:,}", *errors])
    return rows
