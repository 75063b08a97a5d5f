"""Where the numbers of a training go."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from recsys.core.environment import describe_environment
from recsys.core.errors import ConfigError
from recsys.core.installation import extra_command
from recsys.core.secrets import mask_settings
from recsys.distributed.processes import on_first_rank
from recsys.runs.config import RunConfig
from recsys.runs.files import TENSORBOARD
from recsys.runs.folder import wandb_run_id
from recsys.runs.metrics_log import MetricsCsv


def loggers_of(config: RunConfig, run_dir: Path) -> list[Logger]:
    """``metrics.csv``, and what ``logger`` adds.

    Raises:
        ConfigError: an extra of the installation is missing, or a place is taken.
    """
    loggers: list[Logger] = [MetricsCsv(run_dir)]
    if config.logger.wandb:
        import wandb  # seconds, which only those wait who log there

        # what it would note itself of git and the command line may hold secrets
        unasked = wandb.Settings(disable_git=True, x_disable_meta=True)
        settings = mask_settings(asdict(config)) | {"environment": describe_environment()}
        loggers.append(
            WandbLogger(
                name=run_dir.name,
                id=on_first_rank(lambda: wandb_run_id(run_dir)),
                resume="allow",
                project=config.logger.project,
                offline=config.logger.offline,
                save_dir=run_dir,
                config=settings,
                settings=unasked,
            )
        )
    if config.logger.tensorboard:
        _require("tensorboard", "tensorboard")
        loggers.append(TensorBoardLogger(run_dir, name=None, version="", sub_dir=TENSORBOARD))
    if config.logger.prometheus:
        _require("prometheus", "prometheus_client")
        from recsys.runs.prometheus import PrometheusLogger

        loggers.append(PrometheusLogger(run_dir, config.logger))
    return loggers


def _require(extra: str, module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"logger={extra} needs {extra}, which is not installed: {extra_command(extra)} "
            "installs it."
        )
