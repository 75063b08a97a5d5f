from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recsys.core.schemas import instantiate, structured
from recsys.data.simulator.block import USERS_PER_BLOCK, UserBlock, simulate_block
from recsys.data.simulator.catalogue import Catalogue, make_catalogue
from recsys.data.simulator.config import SimulatorConfig

CONF = Path(__file__).parents[3] / "conf"

#: A quick log with enough request rows for statistics.
SMALL = (
    "users=150",
    "days=12",
    "fit_days=6",
    "request_share=0.9",
    "activity.scale=0.02",
    "catalogue.authors=400",
    "catalogue.items=8000",
    "catalogue.warm_up_days=20",
)


def load_config(name: str, *overrides: str) -> SimulatorConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        prefixed = [f"simulator.{override}" for override in overrides]
        composed = compose(f"simulator/{name}", overrides=prefixed)
    merged = OmegaConf.merge(structured(SimulatorConfig), composed.simulator)
    return instantiate(SimulatorConfig, merged)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., SimulatorConfig]:
    return load_config


@pytest.fixture(scope="session")
def small_config() -> SimulatorConfig:
    return load_config("demo", *SMALL)


@pytest.fixture(scope="session")
def catalogue(small_config: SimulatorConfig) -> Catalogue:
    return make_catalogue(small_config, np.random.default_rng(0))


@pytest.fixture(scope="session")
def blocks(catalogue: Catalogue) -> list[UserBlock]:
    """Four blocks of longer histories: about 100,000 request rows."""
    config = load_config("demo", *SMALL, "activity.scale=0.1", "fit_days=9")
    return [
        simulate_block(config, catalogue, USERS_PER_BLOCK, np.random.default_rng(seed))
        for seed in range(4)
    ]
