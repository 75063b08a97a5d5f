"""Building a data set's engagement store, and reading batches of sequences from it.

One pass is read first and not counted; of the others the one with the least CPU time stands, for
other processes on the machine can only add to it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.table import Table

from recsys.core.console import output_console
from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.contract.schema import Split
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.build import SEQUENCES
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore

DESCRIPTION = "building the engagement store of a data set, and the loader's speed on it"


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        dataset: a prepared data set; its engagements are built anew.
        passes: passes over a split that are timed.
        sequences: what counts as an engagement.
        loader: how sequences are cut and put into batches.
    """

    dataset: str = "prepared/globo"
    passes: int = 3
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)

    def __post_init__(self) -> None:
        """Refuse a measurement of nothing."""
        if self.passes < 1:
            raise ConfigError(f"passes is {self.passes}, it must be at least 1.")


@dataclass(frozen=True)
class Measurement:
    """One split.

    Attributes:
        queries: of a pass; events of their histories likewise.
        batches: of a pass.
        seconds: CPU time of this process.
        wall_seconds: of the same pass.
    """

    queries: int
    events: int
    batches: int
    seconds: float
    wall_seconds: float


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    dataset = PreparedDataset.open(Path(config.dataset))
    SEQUENCES.forget(dataset.path)
    start = time.process_time()
    engagements = EngagementStore.open(dataset, config.sequences)
    built = time.process_time() - start
    data = SequenceDataModule(config.loader, dataset, engagements)
    measured = {split: measure(data, split, config.passes) for split in (Split.FIT, Split.CHOOSE)}
    table = Table(
        "split",
        title=f"{dataset.manifest.name}: {len(engagements):,} engagements, built in {built:.2f} s",
    )
    for heading in ("queries", "events", "ms a batch", "queries a second", "events a second"):
        table.add_column(heading, justify="right")
    for split, one in measured.items():
        table.add_row(
            split,
            f"{one.queries:,}",
            f"{one.events:,}",
            f"{1_000 * one.seconds / one.batches:.2f}",
            f"{one.queries / one.seconds:,.0f}",
            f"{one.events / one.seconds:,.0f}",
        )
    output_console().print(table, "Times are CPU time of the reading process, without its workers.")
    return {
        "engagements": len(engagements),
        "build_seconds": built,
        **{str(split): asdict(one) for split, one in measured.items()},
    }


def measure(data: SequenceDataModule, split: str, passes: int) -> Measurement:
    """The pass over a split with the least CPU time."""
    timed = []
    for _ in range(passes + 1):
        loader = data.loader(split, shuffle=split == Split.FIT)
        wall, cpu = time.perf_counter(), time.process_time()
        queries = events = batches = 0
        for batch in loader:
            queries, events = queries + len(batch.user), events + len(batch.item)
            batches += 1
        seconds, wall_seconds = time.process_time() - cpu, time.perf_counter() - wall
        timed.append(Measurement(queries, events, batches, seconds, wall_seconds))
    return min(timed[1:], key=lambda one: one.seconds)
