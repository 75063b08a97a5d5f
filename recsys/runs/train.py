"""A training run: configuration → data, model, trainer, run folder; and going on with one."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from recsys.core.console import message_console
from recsys.core.environment import ENVIRONMENT_FILE, read_environment
from recsys.core.errors import ConfigError
from recsys.core.mirror import Mirror
from recsys.core.threads import find_threads
from recsys.data.contract.generations import generation_text, periods_text
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.stores.dataset import PreparedDataset
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.plugins import OneFileCheckpoints
from recsys.distributed.checkpoint.weights import held_weights, refuse_other_weights
from recsys.distributed.config import SINGLE
from recsys.distributed.gpus import BoundGpus
from recsys.distributed.processes import (
    first_rank_first,
    on_first_rank,
    on_processes,
    process_group,
    started_by_a_launcher,
)
from recsys.distributed.strategy import TorchRecStrategy
from recsys.evaluation.metrics_file import replace_metrics
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.with_protocol import with_protocol
from recsys.nn.tables.collection import tables_without_memory
from recsys.nn.tables.first_rows import rows_come_later
from recsys.runs.callbacks import ProgressBar, StepSeed, ValidateEverySteps
from recsys.runs.checkpoints import BEST, CHECKPOINTS, Checkpoints
from recsys.runs.compiled import compile_dense_parts
from recsys.runs.config import BF16_MIXED, RunConfig
from recsys.runs.divergence import noted_if_diverged
from recsys.runs.files import LOGS
from recsys.runs.folder import (
    begin,
    begun_unless_refused,
    go_back_to_checkpoint,
    held,
    run_folder,
    time_stamp,
)
from recsys.runs.load import open_dataset
from recsys.runs.loggers import loggers_of
from recsys.runs.metrics_log import close_log
from recsys.runs.precision import Bfloat16Mixed, choose_products
from recsys.runs.preemption import Preemption
from recsys.runs.profile import Profile
from recsys.runs.rank_watch import RankWatch
from recsys.runs.remote import local_checkpoint, uploaded_run
from recsys.runs.sharding_plan import PlanFiles
from recsys.runs.system import MeasuredRows, TrainableSystem
from recsys.runs.warm_start_callback import WarmStart, refuse_later_days
from recsys.runs.whole_checkpoints import another_named


def train(system: TrainableSystem[Any], config: RunConfig) -> Path:
    """Train a model, or go on with a run that was cut off, and return the run folder.

    A run of several processes that no launcher has started starts them here, on this machine.

    Args:
        system: what is trained.
        config: of the run, in the system's schema; ``run_dir`` may be a URL, at which the run lies
            whenever a checkpoint is whole. The folder that is returned is on the disk even so.

    Raises:
        RecsysError: a configuration or data set that cannot work, or a run folder that is taken.
    """
    with uploaded_run(config) as (placed, mirror):
        return _train_in_folder(system, placed, mirror)


def _train_in_folder(
    system: TrainableSystem[Any], config: RunConfig, mirror: Mirror | None
) -> Path:
    """Train; the folder is uploaded by ``mirror`` whenever a checkpoint is whole."""
    if config.strategy.name == SINGLE:
        return _train(system, config, mirror)
    if config.num_processes > 1 and not started_by_a_launcher():
        if config.trainer.num_nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes is {config.trainer.num_nodes}, but nothing has started "
                "processes on the other nodes; start the run by torchrun or SLURM."
            )
        run_dir = run_folder(config)
        placed = replace(config, run_dir=str(run_dir))
        logs = run_dir / LOGS / time_stamp()
        return on_processes(
            config.trainer.devices, _train_in_folder, system, placed, mirror, logs=logs
        )
    with process_group(config.num_processes, _backend(config), config.strategy.timeout_minutes):
        return _train(system, config, mirror)


def _backend(config: RunConfig) -> str:
    return "nccl" if _on_gpu(config) else "gloo"


def _on_gpu(config: RunConfig) -> bool:
    accelerator = config.trainer.accelerator
    return accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())


def _train(system: TrainableSystem[Any], config: RunConfig, mirror: Mirror | None) -> Path:
    """Train in this process; only the first of several writes to the run folder."""
    run_dir = on_first_rank(lambda: run_folder(config))
    with ExitStack() as folder:
        on_first_rank(lambda: folder.enter_context(held(run_dir)))
        checkpoint = None
        if config.resume:
            _use_threads_of(run_dir)
            dataset, manifest = _known_dataset(config, run_dir)
            checkpoint = on_first_rank(lambda: go_back_to_checkpoint(run_dir))
        else:
            data_config = on_first_rank(lambda: open_or_prepare(config.data)[1])
            dataset = system.dataset_of(config, PreparedDataset.open(data_config.out_folder))
            manifest = dataset.manifest
            if config.warm_start.checkpoint is not None:
                refuse_later_days(local_checkpoint(config.warm_start.checkpoint), manifest)
            config = replace(config, data=data_config).on(manifest)
            named = str(run_dir if mirror is None else mirror.place)
            on_first_rank(lambda: begin(run_dir, replace(config, run_dir=named), manifest))
            on_first_rank(lambda: _say_what_is_seen(system, config, dataset))
        on_first_rank(lambda: say_days(dataset))
        products = choose_products(_on_gpu(config), config.trainer.tf32)
        if products is not None:
            on_first_rank(lambda: message_console().print(products))
        with noted_if_diverged(run_dir):
            checkpoints = _fit(system, config, run_dir, dataset, manifest, checkpoint, mirror)
        on_first_rank(lambda: _finish(system, config, run_dir, dataset, checkpoints))
        if mirror is not None:
            on_first_rank(mirror.upload)
    return run_dir


def say_days(dataset: PreparedDataset) -> None:
    """Say which days of a data set are trained on, chosen by and reported, where it has days."""
    manifest = dataset.manifest
    if not manifest.has_times:
        return
    generation = f", generation {manifest.generation}" * bool(manifest.generation)
    message_console().print(
        f"Data set {manifest.name}{generation}: {periods_text(manifest.split_bounds)}."
    )


def _say_what_is_seen(
    system: TrainableSystem[Any], config: RunConfig, dataset: PreparedDataset
) -> None:
    """Print which events of the data set will be seen: what a log calls its actions decides it."""
    for seen in system.seen(config, dataset):
        message_console().print(str(seen))


def _use_threads_of(run_dir: Path) -> None:
    """As many threads as the run began with: sums depend on them in their last bits.

    The user's ``OMP_NUM_THREADS`` goes before.
    """
    if (run_dir / ENVIRONMENT_FILE).is_file() and not find_threads().is_given:
        torch.set_num_threads(read_environment(run_dir)["hardware"]["torch_threads"])


def _known_dataset(config: RunConfig, run_dir: Path) -> tuple[PreparedDataset, DatasetManifest]:
    """The data set of a run, which may have grown since, and its manifest as of then."""
    if not (config.data.out_folder / DATASET_FILE).is_file():
        on_first_rank(lambda: open_or_prepare(config.data)[1])
    return open_dataset(run_dir, config), DatasetManifest.load(run_dir)


def _fit(
    system: TrainableSystem[Any],
    config: RunConfig,
    run_dir: Path,
    dataset: PreparedDataset,
    manifest: DatasetManifest,
    checkpoint: Path | None,
    mirror: Mirror | None,
) -> Checkpoints:
    """Train from the initial weights or from ``checkpoint``; ``manifest`` sizes the tables."""
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    sharded = config.strategy.name != SINGLE
    # the first rank leaves what others need beside the data set
    refused = nullcontext() if config.resume else begun_unless_refused(run_dir)
    with refused, first_rank_first(), tables_without_memory():
        assembly = system.assemble(config, dataset, manifest)
        compile_dense_parts(system, config, assembly.model)
    settings = config.trainer
    checkpoints = Checkpoints(
        run_dir / CHECKPOINTS,
        settings.checkpoint_every_n_steps,
        system.monitor_of(config),
        settings.keep_best,
        settings.patience,
        then=None if mirror is None else mirror.upload,
    )
    if mirror is not None:  # what the store does not allow is known before the first step
        on_first_rank(mirror.upload)
    warm = config.warm_start.checkpoint is not None and checkpoint is None
    trainer = build_trainer(config, run_dir, checkpoints, warm)
    later = rows_come_later() if warm or checkpoint is not None else nullcontext()
    with later, nullcontext() if checkpoint is None else another_named(run_dir):
        if checkpoint is not None and not sharded:  # the strategy of several processes does it
            stored = open_checkpoint(checkpoint).stored_weights()
            refuse_other_weights(held_weights(assembly.model), stored)
        trainer.fit(assembly.model, assembly.data, ckpt_path=checkpoint, weights_only=True)
    return checkpoints


def _finish(
    system: TrainableSystem[Any],
    config: RunConfig,
    run_dir: Path,
    dataset: PreparedDataset,
    checkpoints: Checkpoints,
) -> None:
    """Write what the best checkpoint is worth, and what the system leaves."""
    close_log(run_dir)
    measured = system.measured(config, dataset, Split.CHOOSE)
    _write_validation_metrics(
        config, run_dir, generation_text(dataset.manifest), measured, checkpoints
    )
    system.finish(run_dir)


def build_trainer(
    config: RunConfig, run_dir: Path, checkpoints: Checkpoints, warm: bool = False
) -> lightning.Trainer:
    """The Lightning Trainer of a run; a ``warm`` one takes the weights of ``config.warm_start``.

    Raises:
        ConfigError: a device or precision that this machine does not have.
    """
    settings = config.trainer
    plan_files = PlanFiles(run_dir)
    callbacks: list[lightning.Callback] = [
        StepSeed(config.seed),
        checkpoints.divergence,
        checkpoints,
        Preemption(checkpoints),
        plan_files,
    ]
    if settings.validate_every_n_steps is not None:
        callbacks.append(ValidateEverySteps(settings.validate_every_n_steps))
    if warm:
        callbacks.append(WarmStart(config.warm_start, run_dir))
    if config.strategy.name != SINGLE and config.strategy.hang_minutes is not None:
        callbacks.append(RankWatch(run_dir, config.strategy.hang_minutes))
    if settings.profile_steps is not None:
        callbacks.append(Profile(run_dir, settings.profile_after, settings.profile_steps))
    if settings.progress_bar:
        callbacks.append(ProgressBar())
    try:
        return _trainer(config, run_dir, callbacks, _strategy(config, plan_files))
    except (ValueError, MisconfigurationException) as error:
        raise ConfigError(f"The trainer cannot be built: {' '.join(str(error).split())}") from error


def _trainer(
    config: RunConfig, run_dir: Path, callbacks: list[lightning.Callback], strategy: Strategy | str
) -> lightning.Trainer:
    settings = config.trainer
    # filling memory that is written next, for determinism, took 7 % of SASRec's step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return lightning.Trainer(
        accelerator=_accelerator(config),
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=strategy,
        use_distributed_sampler=False,  # the batches are divided among the processes already
        inference_mode=config.strategy.name == SINGLE,  # sharded lookups communicate
        max_epochs=settings.max_epochs,
        max_steps=settings.max_steps,
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate_batches,
        val_check_interval=settings.validate_every_n_steps,  # see ValidateEverySteps
        # None counts the steps of the whole run, so that an interval may span epochs
        check_val_every_n_epoch=1 if settings.validate_every_n_steps is None else None,
        log_every_n_steps=settings.log_every_n_steps,
        deterministic=settings.deterministic,
        num_sanity_val_steps=0,
        logger=loggers_of(config, run_dir),
        callbacks=callbacks,
        plugins=_plugins(config),  # type: ignore[arg-type]
        enable_progress_bar=settings.progress_bar,
        enable_model_summary=False,
        default_root_dir=run_dir,
    )


def _accelerator(config: RunConfig) -> str | BoundGpus:
    if config.strategy.name != SINGLE and _on_gpu(config):
        return BoundGpus()
    return config.trainer.accelerator


def _strategy(config: RunConfig, plan_files: PlanFiles) -> Strategy | str:
    if config.strategy.name == SINGLE:
        return "auto"
    return TorchRecStrategy(
        config.strategy,
        on_plan=plan_files.show,
        write_in_background=config.trainer.checkpoint_in_background,
        seed=config.seed,
    )


def _plugins(config: RunConfig) -> list[OneFileCheckpoints | Bfloat16Mixed]:
    plugins: list[OneFileCheckpoints | Bfloat16Mixed] = []
    if config.trainer.precision == BF16_MIXED:
        plugins.append(Bfloat16Mixed("cuda" if _on_gpu(config) else "cpu"))
    if config.strategy.name == SINGLE:  # the other strategy has its own
        plugins.append(OneFileCheckpoints(config.trainer.checkpoint_in_background))
    return plugins


def _write_validation_metrics(
    config: RunConfig,
    run_dir: Path,
    dataset: str,
    measured: MeasuredRows,
    checkpoints: Checkpoints,
) -> None:
    """Write the metrics of the best checkpoint on the choose split."""
    best = checkpoints.best[0]
    protocol = Protocol(
        dataset=dataset,
        split=Split.CHOOSE.value,
        rows=measured.rows,
        users=measured.users,
        seed=config.seed,
        checkpoint=f"{BEST} of step {best.step}",
        chosen_by=checkpoints.monitor.rule,
        candidates=measured.candidates,
    )
    values = {name.removeprefix("val/"): v for name, v in best.metrics.items()}
    replace_metrics(run_dir, "val/", with_protocol(values, "val", protocol))
