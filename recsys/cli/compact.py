"""`recsys data compact`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING

from recsys.cli.described import with_dataset
from recsys.core.bounds import Settings
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.data.stores.dataset import TIMELINES, locked_dataset
from recsys.data.stores.timelines import TimelineWriter


@dataclass(frozen=True)
class CompactConfig(Settings):
    """What to compact.

    Attributes:
        dataset: the prepared data set.
    """

    dataset: str = MISSING


def configure(overrides: Sequence[str]) -> CompactConfig:
    """Compose conf/compact.yaml; the description of a data set stands for its folder."""
    return compose("compact", CompactConfig, with_dataset(overrides))


def run(overrides: Sequence[str]) -> None:
    """Merge the segments and say how many there were."""
    with (
        locked_dataset(configure(overrides).dataset) as dataset,
        TimelineWriter(dataset.path / TIMELINES) as writer,
    ):
        segments = writer.num_segments
        writer.compact()
        left = writer.num_segments
    message_console().print(f"Timelines: {segments} segments merged into {left}.")
