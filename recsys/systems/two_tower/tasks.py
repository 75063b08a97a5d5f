"""Which engagements are whose task, and what the pools of the softmax are drawn from.

Legend: n pairs of a user and an item, K tasks, V items.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.sequences.shown import ShownItems
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.engagements.taken import actions_taken, pair_keys
from recsys.evaluation.groups import TASK_GROUP, QueryGroup
from recsys.evaluation.retrieval import RetrievalProtocol
from recsys.systems.two_tower.config import TwoTowerRunConfig


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
