"""Forked ranks that train DV365, save, and load on other numbers of ranks; see test_resume.py."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist

from recsys.distributed.config import StrategyConfig, TableConstraint
from recsys.distributed.strategy import TorchRecStrategy
from recsys.optim.shampoo.run_config import ShampooConfig

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import forked  # noqa: E402
from dv365_process import make_model, samples  # noqa: E402

STEPS = 4
SAVED = 2
#: Each rank has the state of its own blocks alone.
SHAMPOO = ShampooConfig(precondition_frequency=1, max_preconditioner_dim=8)


def constraints(sharding_type: str) -> StrategyConfig:
    """Every table of one sharding type."""
    table = TableConstraint(sharding_types=[sharding_type], min_columns=4)
    return StrategyConfig(name="torchrec", tables=[table])


class SaveAt(lightning.Callback):
    """Saves after a step, within its epoch, so that a run can go on from there."""

    def __init__(self, step: int, target: Path) -> None:
        self.step = step
        self.target = target

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.target, weights_only=False)


def train(
    rank: int, target: Path, source: Path | None, steps: int, settings: dict[str, Any]
) -> None:
    """Go on from ``source`` until ``steps``, and save."""
    world_size = settings["world_size"]
    dist.init_process_group(
        "gloo", init_method=f"file://{target}.rendezvous", rank=rank, world_size=world_size
    )
    config = constraints(settings["sharding_type"])
    done = 0 if source is None else SAVED
    batches = [
        samples.make_batch(2 * step + rank % 2, requests=5 - rank, rows=3) for step in range(STEPS)
    ]
    trainer = lightning.Trainer(
        max_epochs=1,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        limit_val_batches=0,
        accelerator="cpu",
        devices=world_size,
        strategy=TorchRecStrategy(config, write_in_background=settings["in_background"]),
        default_root_dir=target.parent,
        callbacks=[SaveAt(steps, target)],
    )
    model = make_model(settings["tables"])
    if settings["shampoo"]:
        dense = replace(model.optim.dense, shampoo=SHAMPOO)
        model.optim = replace(model.optim, dense=dense)
    # a plain loader begins anew: what is left comes first
    loader = samples.loader(batches[done:] + batches[:done])
    trainer.fit(model, loader, ckpt_path=source, weights_only=True)
    if steps == done:  # nothing was left to train
        trainer.save_checkpoint(target, weights_only=False)
        trainer.strategy.teardown()


#: Name: from which checkpoint, until which step, on how many ranks, how tables are cut, updated.
RUNS: dict[str, tuple[str | None, int, int, str, str, bool]] = {
    "half": (None, SAVED, 2, "table_wise", "rowwise_adagrad", False),
    "whole": (None, STEPS, 2, "table_wise", "rowwise_adagrad", True),
    "resumed": ("half", STEPS, 2, "table_wise", "rowwise_adagrad", True),
    "two_on_one": ("half", SAVED, 1, "table_wise", "rowwise_adagrad", False),
    "two_on_three_by_columns": ("half", SAVED, 3, "column_wise", "rowwise_adagrad", False),
    "replicated": ("half", SAVED, 2, "data_parallel", "rowwise_adagrad", False),
    "one": (None, SAVED, 1, "column_wise", "adagrad", False),
    "one_on_two": ("one", SAVED, 2, "table_wise", "adagrad", False),
    "two_on_two_by_columns": ("one_on_two", SAVED, 2, "column_wise", "adagrad", False),
    "shampoo_half": (None, SAVED, 2, "table_wise", "sgd", True),
    "shampoo_whole": (None, STEPS, 2, "table_wise", "sgd", False),
    "shampoo_resumed": ("shampoo_half", STEPS, 2, "table_wise", "sgd", False),
    "shampoo_on_three": ("shampoo_half", SAVED, 3, "table_wise", "sgd", False),
    "shampoo_on_one": ("shampoo_half", SAVED, 1, "table_wise", "sgd", False),
}


def main(folder: Path) -> None:
    """One run after the other."""
    for name, (source, steps, world_size, sharding_type, optimizer, in_background) in RUNS.items():
        settings = {
            "world_size": world_size,
            "sharding_type": sharding_type,
            "tables": optimizer,
            "shampoo": name.startswith("shampoo"),
            "in_background": in_background,
        }
        path = None if source is None else folder / f"{source}.ckpt"
        forked.run(
            world_size,
            partial(
                train, target=folder / f"{name}.ckpt", source=path, steps=steps, settings=settings
            ),
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
