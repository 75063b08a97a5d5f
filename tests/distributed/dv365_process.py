"""One rank of test_strategy.py: trains DV365 under the strategy and saves what came out."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist

from recsys.data.batches.requests import RequestBatch
from recsys.data.loaders.split import BatchLoader
from recsys.distributed.config import StrategyConfig, TableConstraint
from recsys.distributed.processes import start_group_of_one
from recsys.distributed.strategy import TorchRecStrategy
from recsys.optim.fused import FusedOptimizerConfig
from recsys.systems.dv365.module import DV365, OptimConfig

sys.path.insert(0, str(Path(__file__).parent))
from ranks import module_of, train_by_sgd

samples = module_of(Path(__file__).resolve().parents[1] / "systems" / "dv365" / "test_module.py")

STEPS = 6
#: Of the dense weights, by SGD: gradients of norm 0.5 at most.
LEARNING_RATE = 0.3
#: Requests of each rank in every step; the ranks differ in rows too.
REQUESTS, ROWS = (5, 3), (4, 2)

#: Constraints and optimiser of each run over two ranks.
RUNS: dict[str, tuple[list[TableConstraint], str]] = {
    "table_wise": ([TableConstraint(sharding_types=["table_wise"])], "rowwise_adagrad"),
    "column_wise": ([TableConstraint(sharding_types=["column_wise"], min_columns=4)], "adagrad"),
    "table_column_wise": (
        [TableConstraint(sharding_types=["table_column_wise"], min_columns=4)],
        "adagrad",
    ),
    "column_wise_by_row": (
        [TableConstraint(sharding_types=["column_wise"], min_columns=4)],
        "rowwise_adagrad",
    ),
    "data_parallel": ([TableConstraint(sharding_types=["data_parallel"])], "rowwise_adagrad"),
    "in_turn": ([TableConstraint(sharding_types=["table_wise"])], "rowwise_adagrad"),
    "mixed": (
        [
            TableConstraint("user_id", sharding_types=["data_parallel"]),
            TableConstraint("*explicit*", sharding_types=["table_wise"]),
            TableConstraint("topic*", sharding_types=["column_wise"], min_columns=4),
        ],
        "sgd",
    ),
}


def parts(step: int) -> list[RequestBatch]:
    """What each rank gets of a step."""
    batches = [
        samples.make_batch(2 * step + rank, requests=REQUESTS[rank], rows=ROWS[rank])
        for rank in range(2)
    ]
    if step == 0:
        batches[1].labels[:, 1] = torch.nan
    return batches


def joined(batches: list[RequestBatch]) -> RequestBatch:
    """The batches of all ranks as one."""

    def together(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {name: torch.cat([value[name] for value in values]) for name in values[0]}
        return torch.cat(values)

    names = RequestBatch.__dataclass_fields__
    return RequestBatch(
        **{name: together([getattr(batch, name) for batch in batches]) for name in names}
    )


def make_model(optimizer: str) -> DV365:
    """The model without randomness, tables updated by ``optimizer``."""
    backbone = replace(samples.CONFIG.backbone, id_dropout=0.0)
    config = replace(samples.CONFIG, backbone=backbone)
    tables = FusedOptimizerConfig(optimizer, learning_rate=0.05)
    optim: OptimConfig = replace(samples.OPTIM, slice_tables=tables, feature_tables=tables)
    lightning.seed_everything(0, verbose=False)
    return DV365(
        config, samples.MANIFEST, samples.SLICES, samples.FUNNEL, optim, samples.statistics()
    )


def loader(batches: list[RequestBatch]) -> BatchLoader:
    """The batches in their order."""
    return BatchLoader(batches, batch_size=None)


class Logged(lightning.Callback):
    """The losses that would be logged."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def train(
    folder: Path, model: DV365, batches: list[RequestBatch], **settings: Any
) -> dict[str, Any]:
    """Losses, metrics of a validation, and the checkpoint."""
    train_by_sgd(model, LEARNING_RATE)
    logged = Logged()
    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,
        gradient_clip_val=0.5,
        default_root_dir=folder,
        callbacks=[logged],
        **{"accelerator": "cpu"} | settings,
    )
    trainer.fit(model, loader(batches), loader(batches[:2]))
    path = folder / "checkpoint.ckpt"
    trainer.save_checkpoint(path)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"losses": logged.losses, "metrics": metrics, "path": path}


def under_strategy(name: str, folder: Path, rank: int) -> dict[str, Any]:
    """One of ``RUNS`` on this rank's parts."""
    constraints, optimizer = RUNS[name]
    plans: list[Any] = []
    config = StrategyConfig(name="torchrec", tables=constraints, overlap_inputs=name != "in_turn")
    strategy = TorchRecStrategy(config, on_plan=plans.append)
    batches = [parts(step)[rank] for step in range(STEPS)]
    model, order = make_model(optimizer), []
    noted(model, "table_inputs", order)
    noted(model, "training_step", order)
    result = train(folder / name, model, batches, devices=2, strategy=strategy)
    return result | {"plan": plans, "order": order}


def noted(model: DV365, method: str, order: list[tuple[str, int]]) -> None:
    """Have calls of a method during the training noted, with the step whose batch they get."""
    called = getattr(model, method)

    def noting(batch: RequestBatch, *others: Any) -> Any:
        if model.training:
            order.append((method, int(batch.row_id[0]) // 2000))
        return called(batch, *others)

    setattr(model, method, noting)


def in_one_process(name: str, folder: Path) -> dict[str, Any]:
    """One of ``RUNS`` on the parts of both ranks.

    Row-wise Adagrad keeps a number per row and column shard: where tables are cut by columns, one
    process cuts them in the same way.
    """
    constraints, optimizer = RUNS[name]
    batches = [joined(parts(step)) for step in range(STEPS)]
    strategy: Any = "auto"
    if name == "column_wise_by_row":
        strategy = TorchRecStrategy(StrategyConfig(name="torchrec", tables=constraints))
        start_group_of_one("gloo")
    try:
        return train(folder / name, make_model(optimizer), batches, strategy=strategy, devices=1)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def main(folder: Path) -> None:
    """Train every run; Lightning finds rank and address in the environment."""
    rank = int(os.environ["RANK"])
    results = {name: under_strategy(name, folder, rank) for name in RUNS}
    torch.save(results, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
