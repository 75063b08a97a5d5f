"""What every training run is configured by; ``recsys.systems.registry`` adds the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Self

from omegaconf import MISSING

from recsys.core.bounds import (
    Count,
    CountOrZero,
    Name,
    Number,
    OneOf,
    OutPath,
    OutPlace,
    Positive,
    Processes,
    Seed,
    Settings,
)
from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.prepare.prepare import PrepareConfig
from recsys.distributed.config import SINGLE, StrategyConfig
from recsys.runs.warm_start import WarmStartConfig

BF16_MIXED = "bf16-mixed"


@dataclass(frozen=True)
class TrainerConfig(Settings):
    """How long and on what to train.

    Attributes:
        max_epochs: passes over the fit split.
        max_steps: optimiser steps at most, -1 for no limit.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        devices: processes of a node, each with its own GPU where there are GPUs; more than one
            needs ``strategy=torchrec``.
        num_nodes: nodes, each with so many processes.
        precision: ``32-true``, or ``bf16-mixed``. Float16 has a scale that tables, updated in the
            backward, would not be told of; weights of other types are not what FBGEMM updates.
        tf32: matrix products of float32 on a GPU are rounded to TF32, 10 bits behind the point in
            the place of 23; several times as fast. On a CPU it says nothing.
        compile: compile the dense part of the model by torch.compile, for the systems that have one
            (``TrainableSystem.compiled_parts``); the first steps take a minute more.
        gradient_clip: largest norm of the dense parameters' gradient, None for no limit. Tables
            are updated after every backward and are not clipped.
        accumulate_batches: batches whose gradients make up a step of the dense parameters. Tables
            take a step at each of them, with the batch's share of the gradient.
        validate_every_n_steps: steps between validations, None for the end of each epoch. The
            last step of the training is validated in any case.
        checkpoint_every_n_steps: steps between two saves of ``last.ckpt``.
        checkpoint_in_background: copy the state and write it while the training goes on; it needs
            memory for the copy.
        keep_best: best checkpoints that are kept; ``best.ckpt`` is the best of them.
        patience: validations in a row without a new best one after which the training ends; None
            for none.
        log_every_n_steps: steps between two lines of the training loss.
        deterministic: refuse operations that give other results from run to run.
        profile_steps: batches whose trace is written into the run folder; None for none.
        profile_after: batches before them, in which things settle.
        progress_bar: show one.
    """

    max_epochs: Count = 1
    max_steps: Annotated[int, Number(at_least=1, at_most=10**12, besides=-1)] = -1
    accelerator: Annotated[str, OneOf(("cpu", "gpu", "auto"))] = "cpu"
    devices: Processes = 1
    num_nodes: Processes = 1
    precision: Annotated[str, OneOf(("32-true", BF16_MIXED))] = "32-true"
    tf32: bool = True
    compile: bool = False
    gradient_clip: Positive | None = None
    accumulate_batches: Count = 1
    validate_every_n_steps: Count | None = None
    checkpoint_every_n_steps: Count = 200
    checkpoint_in_background: bool = False
    keep_best: Count = 1
    patience: Count | None = None
    log_every_n_steps: Count = 10
    deterministic: bool = True
    profile_steps: Annotated[int, Number(at_least=1, at_most=10_000)] | None = None
    profile_after: CountOrZero = 5
    progress_bar: bool = True


@dataclass(frozen=True)
class LoggerConfig(Settings):
    """Where numbers go beside ``metrics.csv``, which is always written.

    Attributes:
        wandb: log to Weights & Biases too.
        project: its project.
        offline: keep wandb's files in the run folder and send nothing.
        tensorboard: log to TensorBoard too, into ``tensorboard/`` of the run folder.
        prometheus: write the newest numbers in the text form of Prometheus too.
        prometheus_file: where; None for ``metrics.prom`` in the run folder.
        prometheus_port: serve them there too, as long as the training runs; None for no port.
        prometheus_gateway: ``host:port`` of a Pushgateway they are sent to too; None for none.
    """

    wandb: bool = False
    project: str = "recsys"
    offline: bool = True
    tensorboard: bool = False
    prometheus: bool = False
    prometheus_file: OutPath | None = None
    prometheus_port: Annotated[int, Number(at_least=1, at_most=65_535)] | None = None
    prometheus_gateway: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would be left aside."""
        super().__post_init__()
        for name in ("prometheus_file", "prometheus_port", "prometheus_gateway"):
            if getattr(self, name) is not None and not self.prometheus:
                raise ConfigError(f"logger.{name} is for logger=prometheus; add that.")


@dataclass(frozen=True)
class RunConfig(Settings):
    """What a run of any system depends on.

    Attributes:
        name: of the experiment; part of the default run folder.
        system: what is trained, a key of ``recsys.systems.registry.SYSTEMS``.
        run_dir: the run folder, or its URL; None makes ``runs/<name>/<time>``.
        resume: go on with the run in ``run_dir``.
        settings_by_size: settings that neither the command nor an experiment gives follow from the
            size of the data set, where the system has rules for that.
        seed: of the initial weights, the order of the examples and dropout.
        data_dir: where data sets are looked for, before RECSYS_DATA_DIR and ./data.
        data: the data set and how it is prepared.
        trainer: how long and on what to train.
        strategy: how the run is spread over processes.
        warm_start: where a new run's weights come from, if not from the seed.
        logger: where numbers go.
    """

    name: Name = MISSING
    system: str = MISSING
    run_dir: OutPlace | None = None
    resume: bool = False
    settings_by_size: bool = True
    seed: Seed = 0
    data_dir: str | None = None
    data: PrepareConfig = field(default_factory=PrepareConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        """Refuse processes that nobody joins."""
        super().__post_init__()
        if self.num_processes > 1 and self.strategy.name == SINGLE:
            raise ConfigError(
                f"trainer.devices={self.trainer.devices} and trainer.num_nodes="
                f"{self.trainer.num_nodes} are {self.num_processes} processes, strategy=single is "
                "one; choose strategy=torchrec."
            )

    def on(self, manifest: DatasetManifest) -> Self:
        """The same with what was left to the data set settled, as the run keeps it.

        Args:
            manifest: of the data set it is trained on.

        Raises:
            ConfigError: the data set does not have what is asked for.
        """
        return self

    @property
    def num_processes(self) -> int:
        """Processes of the run on all nodes."""
        return self.trainer.devices * self.trainer.num_nodes
