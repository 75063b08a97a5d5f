"""Which engagements are whose task, and what the pools of the softmax are drawn from.

Legend: n pairs of a user and an item, K tasks, V items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.console import message_console
from recsys.core.errors import DataError
from recsys.data.batches.sequences.shown import ShownItems
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.engagements.taken import actions_taken, pair_keys
from recsys.evaluation.groups import TASK_GROUP, QueryGroup
from recsys.evaluation.retrieval import RetrievalProtocol
from recsys.systems.two_tower.config import TwoTowerRunConfig
from recsys.systems.two_tower.module import TaskConfig


def tasks_of_pairs(
    config: TwoTowerRunConfig,
    dataset: PreparedDataset,
    split: str,
    user: NDArray[np.integer],
    item: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """[n, K] the tasks whose action a user took on an item by the end of a split."""
    names = [task.action for task in config.model.tasks]
    if not names:
        return np.ones((len(user), 1), np.bool_)
    every = EngagementStore.open(dataset, replace(config.sequences, repeats=True))
    codes = [dataset.manifest.action_types.index(name) for name in names]
    end = dataset.manifest.split_bounds[split][1]
    return actions_taken(pair_keys(user, item), every, codes, end)


def refuse_empty_tasks(
    asked: Sequence[TaskConfig], tasks: NDArray[np.bool_], dataset: PreparedDataset
) -> None:
    """Refuse tasks of which the fit period has no engagement, and name some of which it has none.

    Args:
        asked: K tasks; none of them for one task of all engagements.
        tasks: [n, K] which of the engagements to learn from are whose.
        dataset: they are of.

    Raises:
        DataError: no engagement is one of any task.
    """
    empty = [task.action for number, task in enumerate(asked) if not tasks[:, number].any()]
    if not empty:
        return
    names = ", ".join(empty)
    if len(empty) == len(asked):
        raise DataError(
            f"no engagement of the fit period of {dataset.manifest.name} is one of {names}; name "
            "actions that users took in model.tasks, or move the bounds of the splits."
        )
    message_console().print(
        f"Of the fit period nothing is learned of {names}: no engagement of it is one."
    )


class TaskProtocol(RetrievalProtocol):
    """A protocol whose groups of queries are also those of each task.

    Args:
        config: of the run.
        dataset: the prepared data set.
        engagements: its sequences.
        known: [V] the items that can be recommended.
        split: ``choose`` or ``report``.
    """

    def __init__(
        self,
        config: TwoTowerRunConfig,
        dataset: PreparedDataset,
        engagements: EngagementStore,
        known: NDArray[np.bool_],
        split: Split,
    ) -> None:
        super().__init__(config.evaluation, dataset, engagements, known, split)
        self._run = config
        self._dataset = dataset
        self._split = split

    def groups(self) -> list[QueryGroup]:
        """Those of every retrieval system, and the queries of each task."""
        queries, names = self.queries, [task.action for task in self._run.model.tasks]
        taken = tasks_of_pairs(self._run, self._dataset, self._split, queries.user, queries.target)
        return super().groups() + [
            QueryGroup(
                f"{TASK_GROUP}{name}",
                f"queries whose item got {name}",
                taken[:, column],
                also_all=True,
            )
            for column, name in enumerate(names)
        ]


def log_shares(
    engagements: EngagementStore,
    labels: tuple[int, int],
    num_items: int,
    shown: ShownItems | None,
    shown_per_label: float,
) -> Tensor:
    """[V] logarithm of each item's share of what pools are drawn from.

    That is labels, in proportion to the engagements that may be some, and hard negatives, in
    proportion to the rows that they are drawn from. One is added to the counts of engagements, so
    that an item without any has a logarithm.

    Args:
        engagements: of all users.
        labels: begin and end of the period that has them, ms.
        num_items: V.
        shown: what hard negatives are drawn from; None where none are drawn.
        shown_per_label: hard negatives for each label.
    """
    inside = (engagements.timestamp >= labels[0]) & (engagements.timestamp < labels[1])
    shares = np.bincount(engagements.item[inside], minlength=num_items) + 1.0
    shares /= shares.sum()
    if shown is not None and len(shown.item):
        of_shown = np.bincount(shown.item, minlength=num_items) / len(shown.item)
        shares = (shares + shown_per_label * of_shown) / (1 + shown_per_label)
    return torch.from_numpy(np.log(shares).astype(np.float32))
