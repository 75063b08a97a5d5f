"""What the report of a retrieval run computes from the ranks in its predictions file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.evaluation.retrieval_metrics import RetrievalMetric

#: The largest K of the curve over K.
LARGEST_K = 1000
#: First number of engagements of each bin of history length.
HISTORY_BIN_STARTS = (0, 1, 2, 5, 10, 20, 50, 100)
#: Bins with fewer queries are not shown.
FEWEST_QUERIES = 30

_RANK = "rank_"


def ranked_candidates(frame: pl.DataFrame) -> list[str]:
    """The candidate sets that answer at least one query."""
    names = (name.removeprefix(_RANK) for name in frame.columns if name.startswith(_RANK))
    return [name for name in names if frame[_RANK + name].count()]


def hits_curve(frame: pl.DataFrame, candidates: str) -> tuple[list[int], list[float]]:
    """The K and the share of targets among the first K, in steps that double or less."""
    rank = frame[_RANK + candidates].drop_nulls().to_numpy()
    k = np.unique(np.geomspace(1, LARGEST_K, 40).round().astype(int))
    found = np.searchsorted(np.sort(rank), k, side="right") / len(rank)
    return k.tolist(), found.tolist()


def by_history_length(
    frame: pl.DataFrame, candidates: Sequence[str], metric: RetrievalMetric
) -> tuple[list[str], dict[str, list[float]]]:
    """A metric by the number of engagements before the query.

    Args:
        frame: predictions of a run.
        candidates: candidate sets, one line each.
        metric: what is measured.

    Returns:
        Names of the bins that have at least :data:`FEWEST_QUERIES`, with how many; per candidate
        set the metric, NaN where it answers none of a bin's queries.
    """
    labels: list[str] = []
    lines: dict[str, list[float]] = {name: [] for name in candidates}
    events = frame["history_events"]
    for first, stop in zip(HISTORY_BIN_STARTS, (*HISTORY_BIN_STARTS[1:], None), strict=True):
        part = frame.filter(events >= first)
        part = part if stop is None else part.filter(part["history_events"] < stop)
        if len(part) < FEWEST_QUERIES:
            continue
        labels.append(f"{_bin_name(first, stop)}\nn={len(part):,}")
        for name, values in lines.items():
            rank = part[_RANK + name].drop_nulls().to_numpy()
            values.append(float(metric.gains(rank).mean()) if len(rank) else np.nan)
    return labels, lines


def _bin_name(first: int, stop: int | None) -> str:
    if stop is None:
        return f"{first} or more"
    return str(first) if stop == first + 1 else f"{first} to {stop - 1}"
