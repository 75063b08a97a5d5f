"""A training run: configuration → data, model, trainer, run folder; and going on with one."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from recsys.data.datamodule import RequestDataModule
from recsys.data.dataset import PreparedDataset
from recsys.data.schema import Split
from recsys.data.slices import SliceSet
from recsys.errors import ConfigError
from recsys.evaluation.protocol import Protocol
from recsys.models.dv365 import DV365
from recsys.nn.losses import LabelStatistics
from recsys.training.callbacks import ProgressBar, StepSeed
from recsys.training.checkpoints import BEST, FOLDER, LAST, RULE, AtomicCheckpointIO, Checkpoints
from recsys.training.composition import save
from recsys.training.config import RunConfig
from recsys.training.datasets import open_or_prepare
from recsys.training.environment import write_environment
from recsys.training.load import CONFIG_FILE, read_checkpoint
from recsys.training.metrics_file import replace_metrics
from recsys.training.metrics_log import MetricsCsv
from recsys.training.predict import FOLDER as PREDICTIONS
from recsys.training.protocols import with_protocol

RUNS = Path("runs")


def train(config: RunConfig) -> Path:
    """Train a model, or go on with a run that was cut off, and return the run folder.

    Raises:
        RecsysError: a configuration or data set that cannot work, or a run folder that is taken.
    """
    dataset, data_config = open_or_prepare(config.data)
    config = replace(config, data=data_config)
    run_dir = _resume_dir(config, dataset) if config.resume else _new_dir(config, dataset)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = _build_model(config, dataset)
    data = RequestDataModule(config.loader, dataset)
    checkpoints = Checkpoints(run_dir / FOLDER, config.trainer.checkpoint_every_n_steps)
    trainer = build_trainer(_with_possible_interval(config, data), run_dir, checkpoints)
    last = run_dir / FOLDER / LAST
    resumed_from = last if config.resume and last.exists() else None
    trainer.fit(model, data, ckpt_path=resumed_from, weights_only=True)
    _write_validation_metrics(config, run_dir, dataset, checkpoints)
    return run_dir


def build_trainer(config: RunConfig, run_dir: Path, checkpoints: Checkpoints) -> pl.Trainer:
    """The Lightning Trainer of a run.

    Raises:
        ConfigError: more than one device, which needs a sharded strategy, or a device or precision
            that this machine does not have.
    """
    settings = config.trainer
    if settings.devices != 1:
        raise ConfigError(
            f"trainer.devices={settings.devices}: training on more than one device needs the "
            "sharded strategy, which is not there yet; set trainer.devices=1."
        )
    callbacks: list[pl.Callback] = [StepSeed(config.seed), checkpoints]
    if settings.progress_bar:
        callbacks.append(ProgressBar())
    try:
        return _trainer(config, run_dir, callbacks)
    except (ValueError, MisconfigurationException) as error:
        raise ConfigError(f"The trainer cannot be built: {' '.join(str(error).split())}") from error


def _trainer(config: RunConfig, run_dir: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    settings = config.trainer
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,  # type: ignore[arg-type]
        max_epochs=settings.max_epochs,
        max_steps=settings.max_steps,
        gradient_clip_val=settings.gradient_clip,
        val_check_interval=settings.validate_every_n_steps,
        log_every_n_steps=settings.log_every_n_steps,
        deterministic=settings.deterministic,
        num_sanity_val_steps=0,
        logger=_loggers(config, run_dir),
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=settings.progress_bar,
        enable_model_summary=False,
        default_root_dir=run_dir,
    )


def _with_possible_interval(config: RunConfig, data: RequestDataModule) -> RunConfig:
    """The configuration with no more steps between validations than an epoch has."""
    settings = config.trainer
    if settings.validate_every_n_steps is None:
        return config
    interval = min(settings.validate_every_n_steps, len(data.loader(Split.FIT, shuffle=True)))
    return replace(config, trainer=replace(settings, validate_every_n_steps=interval))


def _build_model(config: RunConfig, dataset: PreparedDataset) -> DV365:
    manifest = dataset.manifest
    slice_set = SliceSet.from_config(config.slices, manifest.surfaces, manifest.media_types)
    labels = torch.tensor(dataset.requests(Split.FIT).labels)
    statistics = LabelStatistics.from_labels(labels)
    return DV365(config.model, manifest, slice_set, config.encoder, config.optim, statistics)


def _new_dir(config: RunConfig, dataset: PreparedDataset) -> Path:
    """Make the run folder and write what the run depends on."""
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    run_dir = Path(config.run_dir) if config.run_dir else RUNS / config.name / time
    if run_dir.exists() and any(run_dir.iterdir()):
        raise ConfigError(
            f"The run folder {run_dir} is not empty; go on with that run by resume=true, or give "
            "another run_dir."
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    save(replace(config, run_dir=str(run_dir)), run_dir / CONFIG_FILE)
    dataset.manifest.save(run_dir)
    write_environment(run_dir)
    return run_dir


def _resume_dir(config: RunConfig, dataset: PreparedDataset) -> Path:
    """The folder of the run to go on with, its log cut back to the checkpoint."""
    if config.run_dir is None:
        raise ConfigError("resume=true needs run_dir=…, the folder of the run to go on with.")
    run_dir = Path(config.run_dir)
    last = run_dir / FOLDER / LAST
    step = int(read_checkpoint(last)["global_step"]) if last.exists() else 0
    MetricsCsv(run_dir).drop_after(step)
    shutil.rmtree(run_dir / PREDICTIONS, ignore_errors=True)  # of a checkpoint that may change
    return run_dir


def _loggers(config: RunConfig, run_dir: Path) -> list[Logger]:
    loggers: list[Logger] = [MetricsCsv(run_dir)]
    if config.logger.wandb:
        loggers.append(
            WandbLogger(
                name=run_dir.name,
                project=config.logger.project,
                offline=config.logger.offline,
                save_dir=run_dir,
                config=asdict(config),
            )
        )
    return loggers


def _write_validation_metrics(
    config: RunConfig, run_dir: Path, dataset: PreparedDataset, checkpoints: Checkpoints
) -> None:
    """Write the metrics of the best checkpoint on the choose split."""
    requests = dataset.requests(Split.CHOOSE)
    protocol = Protocol(
        dataset=dataset.manifest.name,
        split=Split.CHOOSE.value,
        rows=requests.num_rows,
        users=len(np.unique(requests.user)),
        seed=config.seed,
        checkpoint=f"{BEST} of step {checkpoints.best_step}",
        chosen_by=RULE,
    )
    values = {name.removeprefix("val/"): v for name, v in checkpoints.best_metrics.items()}
    replace_metrics(run_dir, "val/", with_protocol(values, "val", protocol))
