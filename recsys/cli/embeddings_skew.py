"""`recsys embeddings skew`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from recsys.core.composition import compose
from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.systems.ranker.skew import Given, SkewConfig, skew


def configure(overrides: Sequence[str]) -> SkewConfig:
    """Compose conf/embeddings_skew.yaml."""
    return compose("embeddings_skew", SkewConfig, overrides)


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Measure, and print a row for each version and repair."""
    config = configure(overrides)
    found = skew(config)
    rows = [["given", "to", "repair", "mean NE", "change, %"]]
    rows += [_row(one) for one in found.given]
    console = output_console()
    title = f"{config.run_dir} on {found.rows:,} rows of the choose split"
    console.print(text_table(title, rows))
    console.print(
        "Change of the mean NE against version v on the same rows, above 0 is worse; in brackets "
        f"the {config.bootstrap.confidence:.0%} bootstrap interval over users. Maps were fitted on "
        f"{', '.join(f'{users:,}' for users in found.fitted_users)} users."
    )
    if as_object:
        console.print(json.dumps(_plain(asdict(found))))


def _row(one: Given) -> list[str]:
    change = UNDEFINED
    if one.change is not None:
        low, high = _number(one.change.low, "+.3f"), _number(one.change.high, "+.3f")
        change = f"{_number(one.change.value, '+.3f')} [{low}, {high}]"
    return [one.version, f"{one.share:.0%}", one.repair, _number(one.ne, ".4f"), change]


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else UNDEFINED


def _plain(value: Any) -> Any:
    """What is not defined as null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
