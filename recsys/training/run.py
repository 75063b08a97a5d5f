"""A training run: configuration → data, model, trainer, run folder; and going on with one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import FILE_NAME, DatasetManifest
from recsys.data.schema import Split
from recsys.errors import ConfigError
from recsys.evaluation.protocol import Protocol
from recsys.training.callbacks import ProgressBar, StepSeed
from recsys.training.checkpoints import BEST, FOLDER, AtomicCheckpointIO, Checkpoints
from recsys.training.config import RunConfig
from recsys.training.datasets import open_or_prepare
from recsys.training.load import open_dataset
from recsys.training.metrics_file import replace_metrics
from recsys.training.metrics_log import MetricsCsv
from recsys.training.preemption import Preemption
from recsys.training.protocols import with_protocol
from recsys.training.run_folder import (
    begin,
    go_back_to_checkpoint,
    held,
    run_folder,
    wandb_run_id,
)
from recsys.training.systems import system_named


def train(config: RunConfig) -> Path:
    """Train a model, or go on with a run that was cut off, and return the run folder.

    Raises:
        RecsysError: a configuration or data set that cannot work, or a run folder that is taken.
    """
    run_dir = run_folder(config)
    if config.resume:
        with held(run_dir):
            dataset, manifest = _known_dataset(config, run_dir)
            _fit(config, run_dir, dataset, manifest, go_back_to_checkpoint(run_dir))
    else:
        dataset, data_config = open_or_prepare(config.data)
        config = replace(config, data=data_config)
        with held(run_dir):
            begin(run_dir, config, dataset.manifest)
            _fit(config, run_dir, dataset, dataset.manifest)
    return run_dir


def _known_dataset(config: RunConfig, run_dir: Path) -> tuple[PreparedDataset, DatasetManifest]:
    """The data set of a run, which may have grown since, and its manifest as of then."""
    if not (config.data.out_folder / FILE_NAME).is_file():
        open_or_prepare(config.data)
    return open_dataset(run_dir, config), DatasetManifest.load(run_dir)


def _fit(
    config: RunConfig,
    run_dir: Path,
    dataset: PreparedDataset,
    manifest: DatasetManifest,
    checkpoint: Path | None = None,
) -> None:
    """Train from the initial weights or from ``checkpoint``; ``manifest`` sizes the tables."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    system = system_named(config.system)
    assembly = system.assemble(config, dataset, manifest)
    interval = config.trainer.checkpoint_every_n_steps
    checkpoints = Checkpoints(run_dir / FOLDER, interval, system.monitor)
    trainer = build_trainer(_with_possible_interval(config, assembly.data), run_dir, checkpoints)
    trainer.fit(assembly.model, assembly.data, ckpt_path=checkpoint, weights_only=True)
    _write_validation_metrics(config, run_dir, dataset, checkpoints)
    system.finish(run_dir)


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
    callbacks: list[pl.Callback] = [
        StepSeed(config.seed),
        checkpoints,
        Preemption(run_dir / FOLDER),
    ]
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


def _with_possible_interval(config: RunConfig, data: pl.LightningDataModule) -> RunConfig:
    """The configuration with no more steps between validations than an epoch has."""
    settings = config.trainer
    if settings.validate_every_n_steps is None:
        return config
    interval = min(settings.validate_every_n_steps, len(data.train_dataloader()))
    return replace(config, trainer=replace(settings, validate_every_n_steps=interval))


def _loggers(config: RunConfig, run_dir: Path) -> list[Logger]:
    loggers: list[Logger] = [MetricsCsv(run_dir)]
    if config.logger.wandb:
        loggers.append(
            WandbLogger(
                name=run_dir.name,
                id=wandb_run_id(run_dir),
                resume="allow",
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
    measured = system_named(config.system).measured(config, dataset, Split.CHOOSE)
    protocol = Protocol(
        dataset=dataset.manifest.name,
        split=Split.CHOOSE.value,
        rows=measured.rows,
        users=measured.users,
        seed=config.seed,
        checkpoint=f"{BEST} of step {checkpoints.best_step}",
        chosen_by=checkpoints.monitor.rule,
        candidates=measured.candidates,
    )
    values = {name.removeprefix("val/"): v for name, v in checkpoints.best_metrics.items()}
    replace_metrics(run_dir, "val/", with_protocol(values, "val", protocol))
