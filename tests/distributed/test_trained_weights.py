"""Every weight that is trained is in the loss of every batch: ranks wait for each gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor

from recsys.core.errors import RecsysError
from recsys.data.batches.requests import RankingBatch, RequestBatch
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.towers import TowerBatch
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.distributed.processes import on_processes
from recsys.distributed.strategy import TorchRecStrategy
from recsys.distributed.table_module import TableModule
from recsys.systems.choice import compose_run
from recsys.systems.registry import system_named
from tests.cuda_without_gpu.systems import FOLLOWED, write_log

#: What may leave weights out: losses, poolings and channels, beside each system as it comes.
VARIANTS = {
    "nxtpost": (
        ("model.long_term=0", "model.tower.pooling=attention"),
        ("model.short_term=0", "model.tower.cls=false"),
    ),
    "two_tower": (("model.users.cls=false", "model.similarity=mixture"),),
    "ranker": (("model.net.interaction.kind=dcn", "model.net.experts.kind=ple"),),
    "dv365": (("encoder=none", "model.regression_weight=0"),),
}
CASES = [(name, variant) for name in FOLLOWED for variant in ((), *VARIANTS.get(name, ()))]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_log(folder)
    return folder


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_no_batch_leaves_a_weight_without_a_gradient(
    name: str, variant: tuple[str, ...], log: Path
) -> None:
    config = compose_run([*FOLLOWED[name].settings(log), *variant])
    dataset, _ = open_or_prepare(config.data)
    lightning.seed_everything(0, verbose=False)
    assembly = system_named(config.system).assemble(config, dataset, dataset.manifest)
    model = assembly.model
    model.log = model.log_dict = lambda *_, **__: None
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=4, logger=False, enable_checkpointing=False
    )
    model.trainer = trainer  # of which some losses ask how far it is
    if isinstance(model, TableModule):
        model.configure_model()
    assembly.data.setup("fit")
    batch = next(iter(assembly.data.train_dataloader()))
    for one in (batch, without_events(batch)):
        model.zero_grad()
        model.training_step(one, 0).backward()
        weights = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
        left_out = [key for key, value in weights if value.grad is None and "tables" not in key]
        assert weights and not left_out


def without_events(batch: Any) -> Any:
    """The batch with nothing in any history."""
    if isinstance(batch, SequenceBatch):
        of_events = ("item", "action_type", "surface", "timestamp")
        none: dict[str, Any] = {name: getattr(batch, name)[:0] for name in of_events}
        none |= {"lengths": torch.zeros_like(batch.lengths), "pools": {}}
        none |= {"features": {}} if isinstance(batch, TowerBatch) else {}
        return replace(batch, **none)
    if isinstance(batch, RankingBatch):
        of_steps = ("recent_ids", "recent_time", "recent_action", "recent_dwell")
        none = {name: getattr(batch, name)[:, :0] for name in of_steps}
        return replace(batch, **none, recent_lengths=torch.zeros_like(batch.recent_lengths))
    if isinstance(batch, RequestBatch):
        return replace(batch, explicit=_emptied(batch.explicit), implicit=_emptied(batch.implicit))
    return batch  # pairs of items, which have no history


def _emptied(timeline: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(column) if name == "lengths" else column[:0]
        for name, column in timeline.items()
    }


class _Forgetful(lightning.LightningModule):
    """Leaves ``sometimes`` out of the third batch's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.always = torch.nn.Linear(1, 1)
        self.sometimes = torch.nn.Linear(1, 1)

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        loss: Tensor = self.always(batch).sum()
        if number < 2:
            loss = loss + self.sometimes(batch).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train_forgetful() -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=TorchRecStrategy(),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(_Forgetful(), torch.utils.data.DataLoader(torch.ones(5, 1)))


def test_a_model_that_leaves_a_weight_out_is_told_which() -> None:
    with pytest.raises(RecsysError, match=r"On rank \d .* sometimes\.weight, sometimes\.bias"):
        on_processes(2, train_forgetful)
