"""Trainings of `recsys bench convergence`: a curve of quality over steps and seconds of each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning

from benchmarks._convergence_digits import Digits, DigitsData
from recsys.core.errors import ConfigError
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.optim.dense import DenseOptimConfig, DenseOptimizerConfig, ScheduleConfig
from recsys.optim.shampoo.run_config import ShampooConfig
from recsys.runs.checkpoints import CHECKPOINTS, Checkpoints
from recsys.runs.config import RunConfig
from recsys.runs.train import build_trainer
from recsys.systems.choice import compose_run
from recsys.systems.registry import system_named


@dataclass(frozen=True)
class Task:
    """What is trained, how long, and what is tried.

    Attributes:
        metric: of the choose split.
        highest: whether its highest value is best.
        steps: of every training.
        validate_every_n_steps: steps between two points of a curve; it divides ``steps``.
        learning_rates: each with each of ``second_betas`` is a trial.
        second_betas: decay of the running square and of Shampoo's factor matrices.
        seeds: of the trainings with the best trial of each optimiser.
        overrides: of every run, as after `recsys train`; none for digits.
    """

    metric: str
    highest: bool
    steps: int
    validate_every_n_steps: int
    learning_rates: list[float]
    second_betas: list[float]
    seeds: list[int]
    overrides: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse a curve that does not end with the training."""
        if self.steps % self.validate_every_n_steps:
            raise ConfigError(
                f"validate_every_n_steps is {self.validate_every_n_steps}, it must divide the "
                f"{self.steps} steps, so that the last one is measured."
            )


@dataclass(frozen=True)
class Trial:
    """Settings of an optimiser that are tuned."""

    learning_rate: float
    second_beta: float


@dataclass(frozen=True)
class Point:
    """Of a curve.

    Attributes:
        step: optimiser steps done.
        cpu_seconds: CPU time of forward, backward and optimiser step so far.
        wall_seconds: wall time of the same.
        value: of the metric.
    """

    step: int
    cpu_seconds: float
    wall_seconds: float
    value: float


class Recorder(lightning.Callback):
    """Times the steps of a training, without reading batches and validations, and takes points.

    Args:
        metric: of the choose split.
    """

    def __init__(self, metric: str) -> None:
        self.points: list[Point] = []
        self._metric = metric
        self._started = (0.0, 0.0)
        self._cpu = self._wall = 0.0

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Start both clocks."""
        self._started = time.process_time(), time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop them."""
        cpu, wall = self._started
        self._cpu += time.process_time() - cpu
        self._wall += time.perf_counter() - wall

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take a point."""
        value = float(trainer.callback_metrics[self._metric])
        self.points.append(Point(trainer.global_step, self._cpu, self._wall, value))


def train(
    task: Task, trial: Trial, shampoo: ShampooConfig | None, seed: int, overrides: Sequence[str]
) -> list[Point]:
    """The curve of one training by AdamW, or by Shampoo with ``shampoo``.

    Args:
        task: what is trained.
        trial: settings of the optimiser.
        shampoo: further ones of Shampoo; None for AdamW.
        seed: of weights, order and dropout.
        overrides: of this machine, after those of the task.
    """
    recorder = Recorder(task.metric)
    tuned = DenseOptimizerConfig(
        learning_rate=trial.learning_rate, betas=(0.9, trial.second_beta), shampoo=shampoo
    )
    with tempfile.TemporaryDirectory() as folder:
        if task.overrides:
            _train_experiment(task, tuned, seed, overrides, Path(folder), recorder)
        else:
            _train_digits(task, tuned, seed, recorder)
    return recorder.points


def _train_digits(task: Task, tuned: DenseOptimizerConfig, seed: int, recorder: Recorder) -> None:
    lightning.seed_everything(seed, workers=True, verbose=False)
    model = Digits(DenseOptimConfig(tuned, ScheduleConfig(warmup_steps=task.steps // 20)))
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=task.steps,
        val_check_interval=task.validate_every_n_steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder],
    )
    trainer.fit(model, DigitsData(seed))


def _train_experiment(
    task: Task,
    tuned: DenseOptimizerConfig,
    seed: int,
    overrides: Sequence[str],
    folder: Path,
    recorder: Recorder,
) -> None:
    """As `recsys train` does, with a recorder, and without what a run leaves in its folder."""
    config = _configured(task, tuned, seed, overrides)
    dataset, _ = open_or_prepare(config.data)
    lightning.seed_everything(seed, workers=True, verbose=False)
    system = system_named(config.system)
    assembly = system.assemble(config, dataset, dataset.manifest)
    checkpoints = Checkpoints(folder / CHECKPOINTS, task.steps, system.monitor)
    trainer = build_trainer(config, folder, checkpoints)
    trainer.callbacks.insert(0, recorder)  # type: ignore[attr-defined]  # others may take time
    trainer.fit(assembly.model, assembly.data)


def _configured(
    task: Task, tuned: DenseOptimizerConfig, seed: int, overrides: Sequence[str]
) -> RunConfig:
    config: Any = compose_run(
        [
            *task.overrides,
            f"seed={seed}",
            "trainer.max_epochs=1000",
            f"trainer.max_steps={task.steps}",
            f"trainer.validate_every_n_steps={task.validate_every_n_steps}",
            "trainer.progress_bar=false",
            *overrides,
        ]
    )
    dense = replace(tuned, weight_decay=config.optim.dense.weight_decay)
    return replace(config, optim=replace(config.optim, dense=dense))
