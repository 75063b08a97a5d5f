"""The configuration files of model, encoders and optimisers fit the classes they configure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys.core.composition import load
from recsys.nn.encoders import NO_TIMELINES, EncoderConfig, build_encoder
from recsys.systems.dv365.module import DV365Config, OptimConfig

CONFIG_DIRECTORY = Path(__file__).parents[3] / "conf"
ENCODERS = sorted((CONFIG_DIRECTORY / "encoder").glob("*.yaml"))
DEMO_SLICES = 48


@pytest.mark.parametrize("path", ENCODERS, ids=lambda path: path.stem)
def test_every_encoder_file_builds_its_encoder_for_the_demo(path: Path) -> None:
    config = load(path, EncoderConfig)
    assert config.name == path.stem
    if config.name == NO_TIMELINES:
        return
    with torch.device("meta"):
        encoder = build_encoder(config, DEMO_SLICES, 32)
        assert encoder(torch.empty(2, DEMO_SLICES, 32)).shape == (2, encoder.num_outputs, 32)
    # table 1 compares encoders of equal output; only pass-through is larger
    assert encoder.num_outputs == (DEMO_SLICES if config.name == "pass_through" else 20)


def test_there_is_a_file_for_every_encoder_of_table_1() -> None:
    assert len(ENCODERS) == 8


def test_the_funnel_file_gives_58_vectors_for_the_200_slices_of_the_paper() -> None:
    config = load(CONFIG_DIRECTORY / "encoder" / "funnel.yaml", EncoderConfig)
    with torch.device("meta"):
        assert build_encoder(config, 200, 256).num_outputs == 58


def test_files_and_class_defaults_say_the_same() -> None:
    assert load(CONFIG_DIRECTORY / "model" / "dv365.yaml", DV365Config) == DV365Config()
    assert load(CONFIG_DIRECTORY / "optim" / "adamw.yaml", OptimConfig) == OptimConfig()
