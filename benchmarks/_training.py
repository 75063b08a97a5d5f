"""Training steps without Lightning around them, for the benchmarks that time them."""

from __future__ import annotations

import torch

from recsys.data.batches.requests import RequestBatch
from recsys.data.contract.schema import Split
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.dataset import PreparedDataset
from recsys.nn.losses import LabelStatistics
from recsys.systems.dv365.module import DV365
from recsys.systems.dv365.system import DV365RunConfig

_SEED = 0


def build_model(config: DV365RunConfig, dataset: PreparedDataset) -> DV365:
    """The model of `recsys train`, the same weights each time."""
    torch.manual_seed(_SEED)
    manifest = dataset.manifest
    slice_set = SliceSet.of(config.slices, manifest)
    labels = torch.tensor(dataset.requests(Split.FIT).labels)
    statistics = LabelStatistics.from_labels(labels)
    return DV365(config.model, manifest, slice_set, config.encoder, config.optim, statistics)


class Training:
    """A model with its optimisers.

    Args:
        model: whose tables get their fused optimiser here.
    """

    def __init__(self, model: DV365) -> None:
        self.model = model
        model.configure_model()
        self.optimizer = model.configure_optimizers()["optimizer"]

    def step(self, batch: RequestBatch) -> None:
        """Forward, backward (which updates the tables) and the update of the dense weights."""
        self.optimizer.zero_grad()
        self.model.loss(self.model(batch), batch.labels).backward()
        self.optimizer.step()
