"""How well predictions order the items of each request: AUC and nDCG within requests.

Legend: R rows, Q requests, U users, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.paired import Bootstrap, Interval

#: Lengths of lists that nDCG is of.
_CUTS = (5, 10)
LIST_AUC, LIST_NDCG = "list_auc", "list_ndcg"
#: How equal predictions count, by the first part of a metric's name.
LIST_TIE_RULES = {
    LIST_AUC: "a tie between a positive and a negative of a request counts one half",
    LIST_NDCG: "the mean over all orders of items with equal predictions",
}


@dataclass(frozen=True, eq=False)
class ListMeans:
    """A metric's sums by user, and its mean over requests.

    Attributes:
        per_user: [U, 2] sum over the user's requests, and how many there are.
    """

    per_user: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Over all requests; NaN where none can be measured."""
        total, requests = self.per_user.sum(axis=0)
        return float(total / requests) if requests else float("nan")

    def interval(self, bootstrap: Bootstrap) -> Interval:
        """With an interval over users."""
        draws = bootstrap.sums(self.per_user)
        with np.errstate(invalid="ignore"):
            return bootstrap.interval(self.mean, draws[:, 0] / draws[:, 1])


def list_metrics(
    frame: pl.DataFrame,
    tasks: Sequence[Task],
    predictions: NDArray[np.float64],
) -> Mapping[str, ListMeans]:
    """Means over the requests that have both a positive and a negative row of a task.

    A request is what a user was shown at one moment. ``list_auc`` is the share of its pairs of a
    positive and a negative in the right order; ``list_ndcg@k`` is the discounted cumulative gain
    of its best k rows, 1 / log2(1 + place) of each positive, relative to the best order's. The
    metrics of news recommenders (EB-NeRD; Kruse et al. 2024).

    Args:
        frame: ``user``, ``request_time`` and the labels of R rows.
        tasks: K, of which the binary ones are measured.
        predictions: [R, K].

    Returns:
        By ``list_auc/<task>``, ``list_ndcg@5/<task>`` and ``list_ndcg@10/<task>``; NaN where a
        prediction of such a request is no number.

    Example: predictions 0.9, 0.5, 0.5 with labels 0, 1, 0: of the two pairs none is right and one
    is tied, which is an AUC of 0.25; the positive is second or third, an nDCG of
    (1 / log2(3) + 1 / log2(4)) / 2.
    """
    found: dict[str, ListMeans] = {}
    users = frame["user"].to_numpy()
    place = {user: number for number, user in enumerate(np.unique(users).tolist())}
    for number, task in enumerate(tasks):
        if task.kind is not TaskKind.BINARY:
            continue
        rows = pl.DataFrame(
            {
                "user": users,
                "time": frame["request_time"],
                "label": frame[task.column].to_numpy().astype(np.float64),
                "score": predictions[:, number],
            }
        )
        measured = _of_requests(rows.filter(pl.col("label").is_not_nan()))
        owner = measured["user"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
        for name in measured.columns[1:]:
            value = measured[name].to_numpy()
            sums = np.bincount(owner, value, minlength=len(place))
            counts = np.bincount(owner, minlength=len(place))
            found[f"{name}/{task.name}"] = ListMeans(np.stack([sums, counts], axis=1))
    return found


def _of_requests(rows: pl.DataFrame) -> pl.DataFrame:
    """``user`` and the metrics of every request that can be measured; NaN where a score is none."""
    request = ("user", "time")
    broken = (~pl.col("score").is_finite()).any().over(request)
    positives = pl.col("label").sum().over(request)
    size = pl.len().over(request)
    # places of the first and the last row with the same score, 1 the highest
    last = pl.col("score").rank("max", descending=True).over(request)
    first = pl.col("score").rank("min", descending=True).over(request)
    ranked = (
        rows.with_columns(positives=positives, size=size, broken=broken)
        .filter((pl.col("positives") > 0) & (pl.col("positives") < pl.col("size")))
        .with_columns(first=first, last=last)
        .filter(pl.col("label") == 1)
    )
    if ranked.is_empty():
        empty = {f"{LIST_NDCG}@{cut}": pl.Float64() for cut in _CUTS}
        return pl.DataFrame(schema={"user": rows.schema["user"], LIST_AUC: pl.Float64(), **empty})
    one, other = (ranked[name].to_numpy().astype(np.int64) for name in ("first", "last"))
    longest = int(ranked["size"].max())  # type: ignore[arg-type]
    gains = {}
    for cut in _CUTS:
        discount = np.where(np.arange(longest) < cut, 1 / np.log2(np.arange(longest) + 2), 0.0)
        until = np.concatenate([[0.0], np.cumsum(discount)])
        ideal = until[ranked["positives"].to_numpy().astype(np.int64)]
        gains[f"{LIST_NDCG}@{cut}"] = (until[other] - until[one - 1]) / (other - one + 1) / ideal
    number, all_rows = pl.col("positives").first(), pl.col("size").first()
    usable = ~pl.col("broken").first()
    # negatives below a positive, half of those beside it: by its mean place
    below = (pl.col("size") - (pl.col("first") + pl.col("last")) / 2).sum()
    pairs = number * (all_rows - number)
    scored = ranked.with_columns(pl.Series(name, of) for name, of in gains.items())
    return (
        scored.group_by(request, maintain_order=True)
        .agg(
            _or_nan(usable, (below - number * (number - 1) / 2) / pairs).alias(LIST_AUC),
            *(_or_nan(usable, pl.col(name).sum()).alias(name) for name in gains),
        )
        .drop("time")
    )


def _or_nan(usable: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.when(usable).then(value).otherwise(float("nan"))
