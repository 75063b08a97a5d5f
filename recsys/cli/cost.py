"""`recsys cost`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from recsys.core.composition import compose
from recsys.core.console import output_console, text_table
from recsys.systems.dv365.cost import CostConfig, CostLine, cost

_STEPS = ("", "k", "M", "G", "T", "P", "E")
_UNITS = {"byte": "B", "watt": "W"}


def configure(overrides: Sequence[str]) -> CostConfig:
    """Compose conf/cost.yaml."""
    return compose("cost", CostConfig, overrides)


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Compute and print the table."""
    lines = cost(configure(overrides))
    rows = [["", "", "computed from", "DV365"]]
    rows += [[line.name, shown(line), line.formula, line.source] for line in lines]
    console = output_console()
    console.print(text_table("Cost of long histories online and of embeddings ahead", rows))
    if as_object:
        console.print(json.dumps([asdict(line) for line in lines]))


def shown(line: CostLine) -> str:
    """The figure with its unit, in three digits or more."""
    if line.unit not in _UNITS:
        digits = 0 if line.value >= 100 else 1
        return f"{line.value:,.{digits}f} {line.unit}"
    value, step = line.value, 0
    while value >= 1000 and step + 1 < len(_STEPS):
        value, step = value / 1000, step + 1
    return f"{value:,.3g} {_STEPS[step]}{_UNITS[line.unit]}"
