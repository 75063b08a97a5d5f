"""What a prepared data set holds, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recsys.data.contract.actions import IGNORED, unknown_text
from recsys.data.contract.schema import FeatureKind, FeatureSide, Split, TaskKind, TimelineKind
from recsys.data.prepare.intake import NOT_LATER
from recsys.data.stores.dataset import PreparedDataset

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)

_NO_REQUESTS = "No request rows: the log has no impressions with labels."
_NO_TIMES = "No request rows and no times: the log was split by the order of each user's events."
_END_OF_TIME = np.iinfo(np.int64).max


@dataclass(frozen=True)
class TimelineSummary:
    """One timeline kind.

    Attributes:
        events: over all users.
        users: that have at least one event.
        mean: events per user of the data set, users without any among them.
        quantiles: of the same, at ``QUANTILES``.
    """

    events: int
    users: int
    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class SplitSummary:
    """One split.

    Attributes:
        requests: number of requests; rows likewise.
        labels: per task the rate of positives, or the mean of a regression task, over the rows
            where it was observed, and how many rows those are.
        known_users: share of rows whose user was seen (event or row) before the fit period's end.
        known_items: share of rows whose item was seen (event or row) before the fit period's end.
        items_in_fit_rows: share of rows whose item is on a row of the fit split.
    """

    requests: int
    rows: int
    labels: dict[str, tuple[float, int]]
    known_users: float
    known_items: float
    items_in_fit_rows: float


def summarise_timelines(dataset: PreparedDataset) -> dict[str, TimelineSummary]:
    """Events, users and history lengths by timeline kind."""
    users = np.arange(1, dataset.manifest.vocabulary_sizes["user"], dtype=np.int32)
    before = np.full(len(users), _END_OF_TIME)
    summaries = {}
    for kind in TimelineKind:
        lengths = dataset.timelines.lengths(users, before, kind, np.iinfo(np.int32).max)
        summaries[str(kind)] = TimelineSummary(
            events=int(lengths.sum()),
            users=int((lengths > 0).sum()),
            mean=float(lengths.mean()) if len(lengths) else 0.0,
            quantiles=tuple(np.quantile(lengths, QUANTILES).tolist()) if len(lengths) else (),
        )
    return summaries


def summarise_splits(dataset: PreparedDataset) -> dict[str, SplitSummary]:
    """Rows, label rates and the share of known ids by split."""
    counts = dataset.manifest.counts
    fit_items = np.zeros(dataset.manifest.vocabulary_sizes["item"], bool)
    fit_items[dataset.requests(Split.FIT).item] = True
    summaries = {}
    for split in Split:
        store = dataset.requests(split)
        users = np.repeat(store.user, np.diff(store.offsets))
        summaries[str(split)] = SplitSummary(
            requests=len(store),
            rows=store.num_rows,
            labels={
                task: _observed_mean(store.labels[:, position])
                for position, task in enumerate(store.tasks)
            },
            known_users=_share_known(users, counts["fit_vocabulary_user"]),
            known_items=_share_known(store.item, counts["fit_vocabulary_item"]),
            items_in_fit_rows=float(fit_items[store.item].mean()) if store.num_rows else 0.0,
        )
    return summaries


def describe(dataset: PreparedDataset) -> RenderableType:
    """Tables of what the data set holds, for the terminal."""
    splits: RenderableType = _NO_REQUESTS if dataset.manifest.has_times else _NO_TIMES
    if dataset.manifest.tasks:
        splits = _split_table(dataset, summarise_splits(dataset))
    return Group(
        _timeline_table(summarise_timelines(dataset)),
        splits,
        _vocabulary_table(dataset),
        _feature_table(dataset),
        rejected_table(dataset.manifest.rejected, "rejected/", dataset.manifest.unknown_actions),
    )


def _observed_mean(labels: NDArray[np.float32]) -> tuple[float, int]:
    observed = labels[~np.isnan(labels)]
    mean = float(observed.mean(dtype=np.float64)) if len(observed) else float("nan")
    return mean, len(observed)


def _share_known(indices: NDArray[np.int32], known: int) -> float:
    return float(((indices > 0) & (indices < known)).mean()) if len(indices) else 0.0


def _timeline_table(summaries: dict[str, TimelineSummary]) -> Table:
    table = Table(title="Timelines: events per user")
    for heading in ("timeline", "events", "users with events", "mean"):
        table.add_column(heading, justify="left" if heading == "timeline" else "right")
    for quantile in QUANTILES:
        table.add_column(f"p{100 * quantile:g}", justify="right")
    for kind, summary in summaries.items():
        quantiles = (f"{value:,.0f}" for value in summary.quantiles)
        table.add_row(
            kind, f"{summary.events:,}", f"{summary.users:,}", f"{summary.mean:,.1f}", *quantiles
        )
    return table


def _split_table(dataset: PreparedDataset, summaries: dict[str, SplitSummary]) -> Table:
    table = Table(title=f"Requests of {dataset.manifest.name} by split")
    table.add_column("")
    for split in summaries:
        table.add_column(split, justify="right")
    table.add_row("requests", *(f"{s.requests:,}" for s in summaries.values()))
    table.add_row("rows", *(f"{s.rows:,}" for s in summaries.values()))
    for task in dataset.manifest.tasks:
        rates = []
        for summary in summaries.values():
            mean, observed = summary.labels[task.name]
            is_rate = task.kind is TaskKind.BINARY
            text = f"{mean:.4%}" if is_rate else f"{mean:.2f} s"
            rates.append(text if observed == summary.rows else f"{text} of {observed:,} rows")
        table.add_row(task.name, *rates)
    shares = {
        "rows with a user seen by the end of fit": "known_users",
        "rows with an item seen by the end of fit": "known_items",
        "rows with an item of a fit row": "items_in_fit_rows",
    }
    for title, name in shares.items():
        table.add_row(title, *(f"{getattr(s, name):.1%}" for s in summaries.values()))
    return table


def _vocabulary_table(dataset: PreparedDataset) -> Table:
    manifest = dataset.manifest
    table = Table(title="Vocabularies (index 0 is the unknown id)")
    for heading in ("id", "indices", "known by the end of fit", "collisions"):
        table.add_column(heading, justify="left" if heading == "id" else "right")
    for name, size in manifest.vocabulary_sizes.items():
        known = manifest.counts[f"fit_vocabulary_{name}"]
        collisions = manifest.counts[f"collisions_{name}"]
        table.add_row(name, f"{size:,}", f"{known:,}", f"{collisions:,}")
    return table


def _feature_table(dataset: PreparedDataset) -> Table:
    table = Table(title="Features of the backbone")
    for heading in ("side", "categorical (indices)", "dense"):
        table.add_column(heading, overflow="fold")
    for side in FeatureSide:
        categorical = dataset.manifest.select(side, FeatureKind.CATEGORICAL)
        dense = dataset.manifest.select(side, FeatureKind.DENSE)
        table.add_row(
            str(side),
            ", ".join(f"{feature.name} ({feature.cardinality:,})" for feature in categorical),
            ", ".join(feature.name for feature in dense),
        )
    return table


def rejected_table(
    rejected: Mapping[str, int], folder: str, unknown_actions: Mapping[str, int]
) -> Table:
    """Counts of rejected rows by reason, and below it the names of actions that are unknown.

    Args:
        rejected: rows by reason.
        folder: where they were written to, as the table names it.
        unknown_actions: rows by name of their action.
    """
    caption = Text(unknown_text(unknown_actions)) if unknown_actions else None
    table = Table(title="Rows that were not taken in", caption=caption, caption_justify="left")
    table.add_column("reason")
    table.add_column("rows", justify="right")
    table.add_column("set aside in", overflow="fold")
    for reason, count in rejected.items():
        counted_only = reason == NOT_LATER or reason.startswith(IGNORED)
        table.add_row(reason, f"{count:,}", "counted only" if counted_only else folder)
    if not rejected:
        table.add_row("none", "0", "")
    return table
