"""How well a first stage finds what the later stages select of a request's candidates.

Legend: Q requests, R candidates over all of them, V items, W width, U users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.console import output_console, text_table
from recsys.core.errors import DataError
from recsys.data.contract.ledger import SELECTED
from recsys.data.stores.requests import RequestStore
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.identity import RunIdentity
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.task_metrics import TaskMetrics
from recsys.evaluation.with_protocol import drawn_by, with_interval, with_protocol
from recsys.reports.retrieval_tables import cell
from recsys.systems.two_tower.module import TwoTower

#: Which items are scored.
SCORED = "what the second stage scored of each request"
#: Who keeps so many of a request's candidates without looking at them.
CHANCE = "chance"
#: Candidates whose scores are computed at a time.
_PAIRS = 2**17


class Selection:
    """The requests of a split, whose candidates the later stages selected or not.

    Args:
        requests: with the label ``selected``.
        kept: of how many best candidates the recall is measured.

    Raises:
        DataError: none was selected.
    """

    def __init__(self, requests: RequestStore, kept: Sequence[int]) -> None:
        self.requests, self.kept = requests, tuple(kept)
        self.selected = requests.labels[:, requests.tasks.index(SELECTED.name)]
        if not self.selected.any():
            raise DataError(
                f"of no request of a split in {requests.path} anything was selected; play more "
                "visits, or move the bounds of the splits."
            )
        self._lengths = np.diff(requests.offsets)
        self._owner = np.repeat(np.arange(len(requests)), self._lengths)

    @torch.no_grad()
    def logits(self, model: TwoTower, users: Tensor, items: Tensor) -> Tensor:
        """[R] of each candidate, of user embeddings [Q, W] and those of all items [V, W]."""
        owner = torch.from_numpy(self._owner).to(users.device)
        item = torch.from_numpy(self.requests.item.astype(np.int64)).to(items.device)
        pairs = zip(owner.split(_PAIRS), item.split(_PAIRS), strict=True)
        return torch.cat([model.logits(users[who], items[what]) for who, what in pairs]).cpu()

    def recall(self, logits: Tensor, kept: int) -> NDArray[np.float64]:
        """[Q] share of a request's selected candidates among so many of its best; NaN without any.

        Equal ones count in the order of the request's candidates.
        """
        order = np.lexsort((-logits.numpy(), self._owner))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - self.requests.offsets[:-1][self._owner]
        return self._share(np.where(place < kept, self.selected, 0))

    def chance(self, kept: int) -> NDArray[np.float64]:
        """[Q] the recall that so many candidates have which were drawn; NaN as of ``recall``."""
        lengths = self._lengths[self._owner]
        return self._share(self.selected * np.minimum(kept / lengths, 1))

    def values(self, logits: Tensor) -> dict[str, float]:
        """``recall@<n>/selected``, a mean over requests, NE, AUC and calibration, by name."""
        metrics = TaskMetrics([SELECTED])
        labels = torch.from_numpy(self.selected.copy())
        metrics.update(logits.double().sigmoid().unsqueeze(1), labels.unsqueeze(1))
        found = {name: value for name, value in metrics.compute().items() if name != "ne/mean"}
        recalls = {recall_name(n): float(np.nanmean(self.recall(logits, n))) for n in self.kept}
        return recalls | found

    def measured(self, logits: Tensor, run: RunIdentity, config: EvaluateConfig) -> Metrics:
        """The same with protocols; recalls with intervals over users, and beside chance."""
        protocol = Protocol(
            dataset=run.dataset,
            split=config.split,
            rows=len(self.selected),
            users=len(np.unique(self.requests.user)),
            seed=run.seed,
            checkpoint=f"{run.checkpoint.name} of step {run.checkpoint.step}",
            chosen_by=run.checkpoint.chosen_by,
            candidates=SCORED,
        )
        metrics = with_protocol(self.values(logits), config.prefix, protocol)
        for n in self.kept:
            name = f"{config.prefix}/{recall_name(n)}"
            interval = self.interval(self.recall(logits, n), config.bootstrap)
            metrics[name] = with_interval(metrics[name], interval, drawn_by(config.bootstrap))
            by_chance = {f"{CHANCE}/{recall_name(n)}": float(np.nanmean(self.chance(n)))}
            metrics |= with_protocol(by_chance, config.prefix, protocol)
        return metrics

    def interval(self, recall: NDArray[np.float64], bootstrap: Bootstrap) -> Interval:
        """Over users, of the mean over requests [Q], without those that are NaN."""
        some = np.isfinite(recall)
        _, user = np.unique(self.requests.user[some], return_inverse=True)
        sums = np.stack([np.bincount(user, recall[some]), np.bincount(user) * 1.0], axis=1)
        draws = bootstrap.sums(sums)
        return bootstrap.interval(float(recall[some].mean()), draws[:, 0] / draws[:, 1])

    def _share(self, counted: NDArray[np.floating]) -> NDArray[np.float64]:
        """[Q] of the selected what is counted [R]."""
        both = [
            np.bincount(self._owner, of, minlength=len(self.requests))
            for of in (counted, self.selected)
        ]
        with np.errstate(invalid="ignore"):
            return both[0] / both[1]


def print_selection(metrics: Metrics, config: EvaluateConfig) -> None:
    """Print what was measured, a row for the model and one for chance; nothing of no selection."""
    ending = f"/{SELECTED.name}"
    names = [
        name.split("/")[1]
        for name in metrics
        if name.endswith(ending) and name.count("/") == 2 and name.startswith(config.prefix)
    ]
    if not names:
        return
    rows = [["", *names]]
    for who in ("", CHANCE):
        place = "/".join(filter(None, (config.prefix, who)))
        rows.append([who or "model", *(cell(metrics.get(f"{place}/{n}{ending}")) for n in names)])
    console = output_console()
    console.print(text_table(f"What the later stages selected, on the split {config.split}", rows))
    protocol = metrics[f"{config.prefix}/{names[0]}{ending}"]["protocol"]
    console.print(f"Protocol: {protocol}", end="\n\n")


def recall_name(kept: int) -> str:
    """What the recall among so many is called in metrics."""
    return f"recall@{kept}/{SELECTED.name}"
