"""`recsys data describe`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING
from rich.table import Table

from recsys.cli.described import with_dataset
from recsys.core.bounds import Count, Settings
from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.data.contract.schema import LENGTHS, TimelineKind
from recsys.data.prepare.describe import describe
from recsys.data.prepare.seen import engagements_seen, slices_seen
from recsys.data.slices.families import SliceConfig
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.timelines import DEFAULT_MAX_EVENTS

#: Users whose histories are in memory at a time.
USERS_PER_CHUNK = 64


@dataclass(frozen=True)
class DescribeConfig(Settings):
    """What to describe.

    Attributes:
        dataset: folder of the prepared data set.
        slices: the slices that are counted.
        users: slices are counted over the whole history of this many users.
    """

    dataset: str = MISSING
    slices: SliceConfig = field(default_factory=SliceConfig)
    users: Count = 1000


def configure(overrides: Sequence[str]) -> DescribeConfig:
    """Compose conf/describe.yaml; the description of a data set stands for its folder."""
    return compose("describe", DescribeConfig, with_dataset(overrides))


def run(overrides: Sequence[str]) -> None:
    """Print the data set's tables and one line per slice."""
    config = configure(overrides)
    dataset = open_checked(config.dataset)
    console = output_console()
    console.print(describe(dataset))
    manifest = dataset.manifest
    slice_set = SliceSet.of(config.slices, manifest)
    if manifest.action_counts:
        console.print(str(engagements_seen(manifest, SequenceConfig())))
    for seen in slices_seen(dataset, slice_set):
        console.print(str(seen))
    users = _some_users(manifest.vocabulary_sizes["user"], config.users)
    counts, events = count_slices(dataset, slice_set, users)
    console.print(_slice_table(slice_set, counts, events, len(users)))


def count_slices(
    dataset: PreparedDataset, slice_set: SliceSet, users: NDArray[np.int32]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Events in each slice [S] and in each timeline, over the histories of some users.

    Windows are measured from the end of the log: its last event.
    """
    moment = dataset.manifest.counts["last_timestamp"] + 1
    counts = np.zeros(len(slice_set.slices), np.int64)
    events = dict.fromkeys(map(str, TimelineKind), 0)
    chunks = np.array_split(users, max(1, len(users) // USERS_PER_CHUNK))
    for chunk in track(chunks, "Counting slices"):
        request_time = np.full(len(chunk), moment)
        histories = {
            kind: dataset.timelines.histories(chunk, request_time, kind, DEFAULT_MAX_EVENTS)
            for kind in TimelineKind
        }
        explicit, implicit = histories[TimelineKind.EXPLICIT], histories[TimelineKind.IMPLICIT]
        counts += slice_set.slice_counts(explicit, implicit, request_time)
        for kind, history in histories.items():
            events[str(kind)] += int(history[LENGTHS].sum())
    return counts, events


def _some_users(num_indices: int, wanted: int) -> NDArray[np.int32]:
    """At most ``wanted`` user indices, evenly spread; 0 is the unknown user."""
    step = max(1, (num_indices - 1) // wanted)
    return np.arange(1, num_indices, step, dtype=np.int32)[:wanted]


def _slice_table(
    slice_set: SliceSet, counts: NDArray[np.int64], events: dict[str, int], users: int
) -> Table:
    title = (
        f"{len(slice_set.slices)} slices in {len(slice_set.tables)} tables; events over "
        f"{users:,} users, windows measured from the last event of the log"
    )
    table = Table("slice", "table (group)", title=title)
    table.add_column("events", justify="right")
    table.add_column("of its timeline", justify="right")
    for one, count in zip(slice_set.slices, counts.tolist(), strict=True):
        total = events[str(one.timeline)]
        share = f"{count / total:.1%}" if total else "-"
        table.add_row(one.name, one.table, f"{count:,}", share)
    return table
