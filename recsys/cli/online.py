"""`recsys online`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.evaluation.paired import Interval
from recsys.online.compare import OnlineComparison, OnlineConfig, compare_online


def configure(overrides: Sequence[str]) -> OnlineConfig:
    """Compose conf/online.yaml."""
    return compose("online", OnlineConfig, overrides)


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Play both policies and print the table."""
    config = configure(overrides)
    found = compare_online(config)
    print_comparison(config.tried, config.against, found)
    if as_object:
        output_console().print(json.dumps(without_nan(asdict(found))))


def print_comparison(tried: str, against: str, found: OnlineComparison) -> None:
    """Print every metric under both policies, and what was asked for beside."""
    rows = [["", tried, against, "difference", "%"]]
    for metric in found.metrics:
        both = (_number(metric.policy.value), _number(metric.against.value))
        rows.append([metric.name, *both, shown(metric.difference), shown(metric.percent, 1)])
    title = f"{found.visits:,} visits of {found.users:,} users, the same draws under both"
    console = output_console()
    console.print(text_table(title, rows))
    for name, ndcg in found.fresh.items():
        console.print(f"NDCG of {name} against lists without a cache: {shown(ndcg)}")
    for name, lost in found.regret.items():
        console.print(_regret_table(name, lost))


def _regret_table(name: str, lost: Mapping[str, Interval]) -> Table:
    best = next(iter(lost.values())).value
    rows = [["", "value per visit", "% of the best list"]]
    for stage, interval in lost.items():
        rows.append([stage, shown(interval), _number(100 * interval.value / best, 1)])
    return text_table(f"What the stages of {name} lose of the best list's value", rows)


def shown(interval: Interval, digits: int = 4) -> str:
    """A value and its interval."""
    low, high = _number(interval.low, digits), _number(interval.high, digits)
    return f"{_number(interval.value, digits)} [{low}, {high}]"


def _number(value: float, digits: int = 4) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:,.{digits}f}"


def without_nan(value: Any) -> Any:
    """JSON has no NaN; what is undefined is null."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
