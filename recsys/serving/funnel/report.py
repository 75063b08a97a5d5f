"""What a ledger says of its funnel: what each stage left, and what each source is worth.

Legend: N candidates over all requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.ledger import scan_ledger
from recsys.serving.funnel.candidates import ALIVE, GAP
from recsys.serving.funnel.funnel import SECOND, VALUE
from recsys.serving.funnel.ledger import describe, noted


@dataclass(frozen=True)
class StageReport:
    """A stage, by requests.

    Attributes:
        name: of the stage.
        left: candidates of a request that are left after it, on average.
        ended: candidates that ended there, on average.
        missed: share of requests at which it was late or failed.
        milliseconds: median, where it was timed; it is that of the batch in which a request was.
    """

    name: str
    left: float
    ended: float
    missed: float
    milliseconds: float | None


@dataclass(frozen=True)
class SourceReport:
    """A source, by requests.

    Attributes:
        name: of the source.
        found: candidates, on average.
        alone: of them found by no other source.
        listed: that came into the list, on average: the others are its waste.
        listed_alone: of the list, found by no other source.
        value: of the listed ones that no other source found, on average: what would be lost
            without it, but for what would take their places.
        missed: share of requests at which it was late or failed.
    """

    name: str
    found: float
    alone: float
    listed: float
    listed_alone: float
    value: float
    missed: float


@dataclass(frozen=True)
class FunnelReport:
    """What a ledger says.

    Attributes:
        requests: noted.
        candidates: of a request, on average.
        stages: in their order.
        sources: likewise.
        cached: share of the candidates with predictions whose predictions came from a cache.
        gap_hours: since these were made, on average; None where there are none.
    """

    requests: int
    candidates: float
    stages: tuple[StageReport, ...]
    sources: tuple[SourceReport, ...]
    cached: float
    gap_hours: float | None


def report(folder: Path) -> FunnelReport:
    """Sum up a ledger.

    Raises:
        DataError: the folder holds no ledger, or one without requests.
    """
    described = describe(folder)
    requests = candidates = predicted = cached = 0
    gap = 0.0
    ended = np.zeros(len(described.stages))
    of_source = np.zeros((len(described.sources), 5))
    for of, outcome in noted(folder):
        one = outcome.candidates
        requests, candidates = requests + len(of), candidates + len(one.item)
        gone = one.death[one.death != ALIVE]
        ended += np.bincount(gone, minlength=len(described.stages))
        predicted += int((~np.isnan(one.scores[SECOND]).all(axis=1)).sum())
        if GAP in one.scores:
            cached, gap = cached + int(one.cached.sum()), gap + float(np.nansum(one.scores[GAP]))
        value = np.nan_to_num(one.scores[VALUE])
        listed = one.position > 0
        for bit in range(len(described.sources)):
            mine = one.sources >> np.uint32(bit) & 1 == 1
            alone = one.sources == 1 << bit
            of_source[bit] += [
                mine.sum(), alone.sum(), (mine & listed).sum(), (alone & listed).sum(),
                value[alone & listed].sum(),
            ]  # fmt: skip
    if not requests:
        raise DataError(f"{folder} holds no request yet.")
    missed = _shares_missed(folder, requests)
    seconds = _median_seconds(folder)
    left = (candidates - np.cumsum(ended)) / requests
    stages = tuple(
        StageReport(
            name,
            float(left[number]),
            float(ended[number] / requests),
            missed.get(name, 0.0),
            None if name not in seconds else 1_000 * seconds[name],
        )
        for number, name in enumerate(described.stages)
    )
    names = ("found", "alone", "listed", "listed_alone", "value")
    sources = tuple(
        SourceReport(
            name=name,
            missed=missed.get(name, 0.0),
            **dict(zip(names, (of_source[bit] / requests).tolist(), strict=True)),
        )
        for bit, name in enumerate(described.sources)
    )
    hours = gap / cached if cached else None
    share = cached / max(predicted, 1)
    return FunnelReport(requests, candidates / requests, stages, sources, share, hours)


def _shares_missed(folder: Path, requests: int) -> dict[str, float]:
    names = scan_ledger(folder).select(pl.col("missed").explode().struct.field("name"))
    counts = names.drop_nulls().group_by("name").len().collect()
    return {name: number / requests for name, number in counts.iter_rows()}


def _median_seconds(folder: Path) -> dict[str, float]:
    pairs = scan_ledger(folder).select(pl.col("seconds").explode()).unnest("seconds").drop_nulls()
    return dict(pairs.group_by("name").agg(pl.col("value").median()).collect().iter_rows())
