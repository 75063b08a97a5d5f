"""Settings that follow from the size of a data set, for runs of which nobody has chosen them.

The rules are of thumb: as many steps as the experiments of conf/ take on logs of that size, enough
steps an epoch for a learning rate to act, and validations that cost less than the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.batches.sequences.queries import FitQueries
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore

#: Steps between two validations, at least; an epoch of fewer is validated at its end.
_VALIDATED_STEPS = 2_000
#: Validations without a better one after which a training ends.
_PATIENCE = 8
#: Queries that a validation ranks, at most.
MOST_QUERIES = 100_000


@dataclass(frozen=True)
class Sized:
    """A setting and why it has its value.

    Attributes:
        key: as after `recsys train`.
        value: likewise.
        reason: what it follows from.
    """

    key: str
    value: int | float | str
    reason: str

    @property
    def override(self) -> str:
        """``key=value``."""
        return f"{self.key}={self.value}"


@dataclass(frozen=True)
class Extent:
    """What a system's training should come to, by its number of examples.

    Attributes:
        smallest_batch: examples of a step; a power of two.
        largest_batch: likewise.
        steps_an_epoch: that smaller logs should have.
        total_steps: of the training.
        most_epochs: passes over a small log.
    """

    smallest_batch: int
    largest_batch: int
    steps_an_epoch: int
    total_steps: int
    most_epochs: int


#: Of models that draw their negatives from the batch: NxtPost's is 1,024 users.
NEGATIVES_IN_BATCH = Extent(64, 1_024, steps_an_epoch=40, total_steps=1_500, most_epochs=30)


#: The value of a setting that the user has given; None of one that follows from the data.
Given = Callable[[str], int | None]


def schedule(
    extent: Extent,
    examples: int,
    what: str,
    batch_key: str,
    warmup: int,
    processes: int,
    given: Given,
) -> list[Sized]:
    """Batch, epochs, warm-up and validations of a training.

    >>> for one in schedule(
    ...     Extent(16, 128, 64, 6_000, 60), 6_040, "users", "batch", 100, 1, lambda key: None
    ... ):
    ...     print(one.override)
    batch=128
    trainer.max_epochs=60
    optim.schedule.warmup_steps=100
    trainer.patience=8

    Args:
        extent: what the training should come to.
        examples: of an epoch.
        what: they are, for the reasons.
        batch_key: the setting of the batch's size.
        warmup: steps of the warm-up in trainings that are long enough.
        processes: that each have their share of the examples.
        given: what the user has chosen, from which the others follow.
    """
    batch = power_of_two(examples / processes / extent.steps_an_epoch)
    batch = min(max(batch, extent.smallest_batch), extent.largest_batch)
    batch = given(batch_key) or batch
    steps = math.ceil(examples / processes / batch)
    epochs = min(max(round(extent.total_steps / steps), 1), extent.most_epochs)
    epochs = given("trainer.max_epochs") or epochs
    most = given("trainer.max_steps") or 0
    total = min(epochs * steps, most) if most > 0 else epochs * steps
    sized = [
        Sized(batch_key, batch, f"{examples:,} {what}: {steps:,} steps an epoch"),
        Sized("trainer.max_epochs", epochs, f"{total:,} steps"),
        Sized("optim.schedule.warmup_steps", min(warmup, max(total // 10, 1)), "of these"),
    ]
    validations = epochs
    if steps > _VALIDATED_STEPS:
        every = max(_VALIDATED_STEPS, total // 20)
        validations = total // every
        sized.append(Sized("trainer.validate_every_n_steps", every, "an epoch is long"))
    if validations > _PATIENCE:
        sized.append(Sized("trainer.patience", _PATIENCE, "validations without a better one"))
    return sized


def sequences(
    extent: Extent,
    loader: SequenceLoaderConfig,
    dataset: PreparedDataset,
    store: EngagementStore,
    processes: int,
    given: Given,
) -> list[Sized]:
    """Schedule, length and cut of a model of sequences, and how many queries it is measured on.

    Args:
        extent: what the training should come to.
        loader: who is trained on.
        dataset: the prepared data set.
        store: its engagements.
        processes: of the training.
        given: what the user has chosen.
    """
    bounds = dataset.manifest.split_bounds
    queries = FitQueries(store, bounds[Split.FIT], loader)
    if not len(queries):
        return []
    lengths = queries.label_stop - store.offsets[queries.user]
    long = math.ceil(np.quantile(lengths, 0.95))
    length = min(max(math.ceil(long / 10) * 10, 10), loader.max_length)
    sized = schedule(
        extent, len(queries), "users with a history", "loader.batch_size", 100, processes, given
    )
    sized.append(Sized("loader.max_length", length, f"95 of 100 users have up to {long:,} events"))
    if long > length and loader.cut == "last":
        sized.append(Sized("loader.cut", "window", "the others are trained on in parts"))
    measured = max(len(store.events_between(*bounds[split])) for split in _MEASURED)
    if measured > MOST_QUERIES:
        why = f"of {measured:,}, evenly drawn"
        sized.append(Sized("evaluation.max_queries", MOST_QUERIES, why))
    return sized


_MEASURED: Sequence[Split] = (Split.CHOOSE, Split.REPORT)


def sized_table(sized: Sequence[Sized]) -> Table:
    """The settings and their reasons, for the terminal."""
    table = Table("setting", "why", title="Settings by the size of the data (settings_by_size)")
    for one in sized:
        table.add_row(one.override, one.reason)
    return table


def power_of_two(number: float) -> int:
    """The nearest one, at least 1.

    >>> [power_of_two(n) for n in (0.1, 3.1, 94.4, 1_000)]
    [1, 4, 128, 1024]
    """
    return int(2 ** max(round(math.log2(max(number, 1))), 0))
