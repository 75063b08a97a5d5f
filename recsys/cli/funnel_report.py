"""`recsys funnel report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys.core.bounds import Settings
from recsys.core.composition import compose
from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.serving.funnel.report import FunnelReport, report


@dataclass(frozen=True)
class ReportConfig(Settings):
    """Which ledger is summed up.

    Attributes:
        ledger: its folder.
    """

    ledger: str


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Print what the stages of a funnel left, and what its sources are worth."""
    found = report(Path(compose("funnel_report", ReportConfig, overrides).ledger))
    console = output_console()
    console.print(text_table(_title(found), _stages(found)))
    console.print(text_table("Its sources, per request", _sources(found)))
    if found.gap_hours is not None:
        console.print(
            f"{100 * found.cached:.1f} % of the predictions came from the cache, made "
            f"{found.gap_hours:,.1f} hours before on average."
        )
    if as_object:
        console.print(json.dumps(asdict(found)))


def _title(found: FunnelReport) -> str:
    return f"{found.requests:,} requests of {found.candidates:,.1f} candidates on average"


def _stages(found: FunnelReport) -> list[list[str]]:
    rows = [["stage", "left", "ended here", "missed, %", "ms (median)"]]
    for one in found.stages:
        milliseconds = UNDEFINED if one.milliseconds is None else f"{one.milliseconds:,.2f}"
        counts = (f"{one.left:,.1f}", f"{one.ended:,.1f}", f"{100 * one.missed:.2f}")
        rows.append([one.name, *counts, milliseconds])
    return rows


def _sources(found: FunnelReport) -> list[list[str]]:
    rows = [["source", "found", "alone", "listed", "listed alone", "their value", "missed, %"]]
    for one in found.sources:
        numbers = (one.found, one.alone, one.listed, one.listed_alone)
        counts = [f"{number:,.1f}" for number in numbers]
        rows.append([one.name, *counts, f"{one.value:,.3f}", f"{100 * one.missed:.2f}"])
    return rows
