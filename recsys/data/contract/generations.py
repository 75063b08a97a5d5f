"""Which days a data set has, and how often days were appended to it, in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_SECOND


def generation_text(manifest: DatasetManifest) -> str:
    """The name of a data set and, where it has grown, its generation and periods.

    ``shop, generation 2 (fit from 2024-05-01 until 2024-05-09, choose until 2024-05-10, …)``
    """
    if not manifest.generation:
        return manifest.name
    periods = periods_text(manifest.split_bounds)
    return f"{manifest.name}, generation {manifest.generation} ({periods})"


def measured_text(trained_on: DatasetManifest, measured_on: DatasetManifest) -> str:
    """The same of a data set that a run is measured on, with what the run has seen of it."""
    text = generation_text(measured_on)
    if trained_on.generation == measured_on.generation:
        return text
    fit_end = short_text(trained_on.split_bounds["fit"][1])
    return f"{text}, trained on generation {trained_on.generation} until {fit_end}"


def periods_text(bounds: Mapping[str, tuple[int, int]]) -> str:
    """``fit from 2024-05-01 until 2024-05-09, choose until 2024-05-10`` and so on."""
    texts, reached = [], None
    for split, (first, last) in bounds.items():
        begin = "" if first == reached else f" from {short_text(first)}"
        texts.append(f"{split}{begin} until {short_text(last)}")
        reached = last
    return ", ".join(texts)


def short_text(moment: int) -> str:
    """A moment in ms as a date (UTC), with the time where it is not midnight."""
    when = datetime.fromtimestamp(moment / MILLISECONDS_PER_SECOND, UTC)
    text = when.strftime("%Y-%m-%d %H:%M:%S")
    return text.removesuffix(" 00:00:00")
