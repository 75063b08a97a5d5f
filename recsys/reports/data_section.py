"""The section of a report that says what the data are: dates, splits, how often labels are 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import numpy as np

from recsys.core.console import UNDEFINED
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_SECOND, Split, TaskKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.reports.page import Section

#: Said where a log has no times of its own.
ORDER_ONLY = (
    "The log's times stand for the order of each user's events alone: no date, day or hour of it "
    "means anything."
)


def splits(manifest: DatasetManifest) -> dict[str, str]:
    """When the splits begin and end, and the last event."""
    found = {
        f"split {split}": f"{moment(first)} to {moment(last)} (UTC)"
        for split, (first, last) in manifest.split_bounds.items()
    }
    if "last_timestamp" in manifest.counts:
        found["last event"] = f"{moment(manifest.counts['last_timestamp'])} (UTC)"
    return found


def moment(milliseconds: int) -> str:
    """A moment to the minute."""
    seconds = milliseconds / MILLISECONDS_PER_SECOND
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def data(
    manifest: DatasetManifest, facts: Mapping[str, str], rows: list[list[str]], has_times: bool
) -> Section:
    """The data set, what a system says of it, and a table.

    Args:
        manifest: of the data set as trained on.
        facts: what the system says of it.
        rows: of the table, below its headings.
        has_times: False where moments stand for an order alone, and no date is shown.
    """
    counts = manifest.counts
    every = {
        "data set": manifest.name,
        "events": f"{counts['events']:,}",
        "users": f"{counts['users']:,}",
        "items": f"{manifest.vocabulary_sizes['item'] - 1:,}",
    }
    facts = every | dict(facts) | (splits(manifest) if has_times else {})
    return Section("Data", note="" if has_times else ORDER_ONLY, facts=facts, rows=rows)


def label_rates(dataset: PreparedDataset) -> list[list[str]]:
    """Headings, then one row per task: its mean label in each split, beside the observed rows."""
    stores = {split: dataset.requests(split) for split in Split}
    headings = [f"{split}: {store.num_rows:,} rows" for split, store in stores.items()]
    rows = [["task", *headings]]
    for position, task in enumerate(dataset.manifest.tasks):
        labels = (store.labels[:, position] for store in stores.values())
        unit = task.kind is TaskKind.BINARY
        rows.append([task.name, *(" ".join(_rate(one, unit)) for one in labels)])
    return rows


def _rate(labels: np.ndarray, is_share: bool) -> Iterator[str]:
    observed = labels[~np.isnan(labels)].astype(np.float64)
    if not len(observed):
        yield UNDEFINED
        return
    yield f"{observed.mean():.3%}" if is_share else f"{observed.mean():.4g}"
    if len(observed) < len(labels):
        yield f"of {len(observed):,} observed"
