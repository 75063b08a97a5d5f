"""Every tower that can be exported is one that can be loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys.artifacts.quantisation import quantized_tower
from recsys.artifacts.torchscript import save_tower, script_tower
from recsys.nn.encoders import EncoderConfig, build_encoder
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.dv365.net import UserTower
from recsys.systems.dv365.quantise import quantize_tables
from recsys.systems.nxtpost.net import SequenceTower, SequenceTowerConfig
from recsys.systems.sequence.module import SequenceRecommender, SequenceRecommenderConfig
from recsys.systems.sequence.tower import SequenceUserTower
from tests.artifacts.test_sequence_tower import CONFIGS, DATASET, WIDTH
from tests.nn.encoders.test_encoders import CONFIGS as ENCODERS
from tests.systems.dv365.towers import SLICES, small_tower

SEQUENCE_TOWERS = CONFIGS | {
    "sum": SequenceTowerConfig(
        width=32, pooling="sum", content_residual=True, static_features=False
    ),
}

ITEM_TOWERS = {
    "sasrec": SequenceRecommenderConfig(width=8, max_length=6),
    "hstu": SequenceRecommenderConfig(
        encoder="hstu", width=8, heads=2, max_length=6, scale=20.0, has_times=True
    ),
}


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.name)
def test_every_encoder(encoder: EncoderConfig, tmp_path: Path) -> None:
    dimension = 16
    sizes = replace(encoder, heads=1) if encoder.heads else encoder
    pooling = small_tower(dimension).pooling
    tower = UserTower(pooling, build_encoder(sizes, len(SLICES.slices), dimension)).eval()
    quantize_tables(tower, 4)
    save_tower(script_tower(tower), tmp_path / "tower.pt")


@pytest.mark.parametrize("recent", ["none", "position_weighted", "hstu"])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_every_table(bits: int, recent: str, tmp_path: Path) -> None:
    tower = small_tower(16, recent=recent)
    quantize_tables(tower, bits)
    save_tower(script_tower(tower), tmp_path / "tower.pt")


@pytest.mark.parametrize("name", SEQUENCE_TOWERS)
def test_every_sequence_tower(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = SequenceTower(SEQUENCE_TOWERS[name], WIDTH, DATASET).eval()
    save_tower(script_tower(tower), tmp_path / "float.pt")
    save_tower(script_tower(quantized_tower(tower)), tmp_path / "int8.pt")


@pytest.mark.parametrize("name", ITEM_TOWERS)
def test_every_tower_of_items(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = SequenceUserTower(SequenceRecommender(ITEM_TOWERS[name], 20, DenseOptimConfig()), 4)
    save_tower(script_tower(tower.eval()), tmp_path / "float.pt")
    save_tower(script_tower(quantized_tower(tower)), tmp_path / "int8.pt")
