"""``trainer.compile``: the dense part of a model compiled by ``torch.compile``."""

from __future__ import annotations

import os
import shutil
from typing import Any

import lightning

from recsys.core.errors import ConfigError
from recsys.distributed.config import SINGLE
from recsys.runs.config import RunConfig
from recsys.runs.system import TrainableSystem


def compile_dense_parts(
    system: TrainableSystem[Any], config: RunConfig, model: lightning.LightningModule
) -> None:
    """Have what the system names compiled at its first call, if the run asks for it.

    Names of weights stay what they are. Sizes of batches stay variables, so that another size
    compiles nothing anew.

    Raises:
        ConfigError: the system has nothing to compile, or there are several processes, or no
            compiler.
    """
    if not config.trainer.compile:
        return
    if config.strategy.name != SINGLE:
        raise ConfigError(
            f"trainer.compile=true is for one process, not for strategy={config.strategy.name}, "
            "whose tables are exchanged between the parts; leave it out."
        )
    parts = system.compiled_parts(model)
    if not parts:
        raise ConfigError(
            f"trainer.compile=true: system={system.name} has no part that is compiled here, for "
            "the sizes in it change with every batch, or are small; leave it out."
        )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"trainer.compile=true needs a C++ compiler, and there is no {compiler}; install one, "
            "name another in the environment variable CXX, or leave it out."
        )
    for part in parts:
        part.compile(dynamic=True)
