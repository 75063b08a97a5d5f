"""Data that no model can learn from, refused with a sentence before a training begins."""

from __future__ import annotations

import numpy as np

from recsys.core.console import message_console
from recsys.core.errors import DataError
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore


def refuse_lone_sequences(engagements: EngagementStore, dataset: PreparedDataset) -> None:
    """Refuse sequences in which nothing follows, or nothing else could have.

    Raises:
        DataError: before the end of the fit period fewer than two users have two engagements, or
            all engagements are with one item.
    """
    end = dataset.manifest.split_bounds[Split.FIT][1]
    users = np.arange(len(engagements.offsets) - 1)
    lengths = engagements.ends_before(users, end) - engagements.offsets[:-1]
    items = len(np.unique(engagements.item[engagements.timestamp < end]))
    several = int((lengths >= 2).sum())
    if several >= 2 and items >= 2:
        return
    raise DataError(
        f"There is nothing to learn from in the fit period of {dataset.manifest.name}: "
        f"{int(lengths.sum()):,} engagements with {items:,} items, and {several} users with two or "
        "more, where it takes two users and two items. Move the bounds of the splits, or count "
        "other actions as engagements (sequences.actions)."
    )


def refuse_constant_labels(dataset: PreparedDataset) -> None:
    """Refuse request rows whose labels are all the same, and name tasks of which that is true.

    Raises:
        DataError: no task has two different labels in the fit period.
    """
    store = dataset.requests(Split.FIT)
    varied: list[str] = []
    constant: list[str] = []
    for position, task in enumerate(dataset.manifest.tasks):
        labels = store.labels[:, position]
        observed = labels[~np.isnan(labels)]
        is_varied = len(observed) > 0 and observed.min() < observed.max()
        found = f"{task.name} is {observed[0]:g} in" if len(observed) else f"{task.name} is not in"
        (varied if is_varied else constant).append(f"{found} all {store.num_rows:,} rows")
    if not varied:
        raise DataError(
            f"There is nothing to learn from in the fit period of {dataset.manifest.name}: "
            f"{'; '.join(constant)}. Move the bounds of the splits, or predict other actions "
            "(options.tasks)."
        )
    if constant:
        message_console().print(
            f"Of the fit period nothing is learned of some tasks: {'; '.join(constant)}."
        )
