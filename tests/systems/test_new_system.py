"""A new system is its folder, its settings and one line of the registry.

One is added to a copy of the checkout, and every command does with it what it does with the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400_000

MODULE = '''
"""A user is the mean of the items engaged with."""

import torch
import torch.nn.functional as F
from torch import nn

from recsys.distributed.schedules import scheduled_optimizer
from recsys.distributed.training_log import log_losses
from recsys.nn.sequence.base import user_of_step
from recsys.systems.kinds.retrieval_module import RetrievalModule


class Toy(RetrievalModule):
    def __init__(self, num_items, width, optim):
        super().__init__()
        self.items = nn.Embedding(num_items, width)
        self.optim = optim

    def forward(self, batch):
        starts = batch.lengths.cumsum(0) - batch.lengths
        return F.embedding_bag(batch.item, self.items.weight, starts, mode="mean")

    def label_loss(self, users, batch):
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))
        return F.cross_entropy(users[of_label] @ self.items.weight.T, batch.label_item)

    def training_step(self, batch, _):
        loss = self.label_loss(self(batch), batch)
        log_losses(self, {"loss": loss}, len(batch.user))
        return loss

    def configure_optimizers(self):
        return scheduled_optimizer(self, self.optim)
'''

CONFIG = '''
"""The configuration of a toy run."""

from dataclasses import dataclass, field

from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.retrieval_config import RetrievalRunConfig


@dataclass(frozen=True)
class ToyConfig:
    width: int = 8


@dataclass(frozen=True)
class ToyRunConfig(RetrievalRunConfig):
    system: str = "toy"
    model: ToyConfig = field(default_factory=ToyConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)
'''

SYSTEM = '''
"""The toy system."""

from pathlib import Path

import torch

from recsys.artifacts.manifest import ARTIFACT
from recsys.data.contract.schema import Split
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import ALL, ChooseValidation
from recsys.runs.system import Assembly
from recsys.systems.kinds.embedding import EmbeddingSystem
from recsys.systems.toy.config import ToyRunConfig
from recsys.systems.toy.module import Toy


class ToySystem(EmbeddingSystem[ToyRunConfig]):
    name = "toy"
    config = ToyRunConfig
    monitor = Monitor(f"val/hits@10/{ALL}", highest=True)

    def assemble(self, config, dataset, manifest):
        model = self.restore(config, dataset, manifest)
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        model.validate = ChooseValidation(
            protocol, lambda users: DotProductScorer(users, model.items.weight), [ALL]
        )
        return Assembly(model, SequenceDataModule(config.loader, dataset, protocol.engagements))

    def restore(self, config, dataset, manifest):
        return Toy(manifest.vocabulary_sizes["item"], config.model.width, config.optim)

    def described(self, config):
        return {"model": "Toy", "width": str(config.model.width)}

    def item_embeddings(self, run):
        return run.model.items.weight.detach()

    def export(self, run, config):
        folder = run.folder / ARTIFACT
        folder.mkdir()
        torch.save(run.model.items.weight.detach(), folder / "items.pt")
        return folder
'''


CONF = """
# @package _global_
# A toy.
defaults:
  - kinds/retrieval
  - /data: log
  - /optim: adam
  - /loader: sequences
  - _self_

model:
  width: 8
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed, with the toy system in it."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("recsys", "conf", "requirements"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    folder = copy / "recsys" / "systems" / "toy"
    folder.mkdir()
    for name, text in (("module", MODULE), ("config", CONFIG), ("system", SYSTEM)):
        (folder / f"{name}.py").write_text(text.lstrip())
    (folder / "__init__.py").write_text('"""A toy."""\n')
    (copy / "conf" / "system" / "toy.yaml").write_text(CONF)
    registry = copy / "recsys" / "systems" / "registry.py"
    line = "SYSTEMS: dict[str, str] = {\n"
    assert line in registry.read_text()
    entry = f'{line}    "toy": "recsys.systems.toy.system:ToySystem",\n'
    registry.write_text(registry.read_text().replace(line, entry))
    return copy


def test_every_command_takes_a_new_system(checkout: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pl.DataFrame(
        {
            "user_id": generator.integers(1, 30, 900),
            "item_id": generator.integers(1, 40, 900),
            "timestamp": 1_700_000_000_000 + np.sort(generator.integers(0, 20 * DAY, 900)),
            "action_type": ["click"] * 900,
        }
    ).write_parquet(tmp_path / "log.parquet")

    def recsys(*words: str) -> str:
        finished = subprocess.run(
            [sys.executable, "-m", "recsys", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "160"},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
        return finished.stdout + finished.stderr

    data = ("data=log", "data.path=log.parquet", "data.out=prepared")
    settings = ("run_dir=run", "trainer.max_epochs=2", "trainer.progress_bar=false")
    assert "Best val/hits@10/all" in recsys("train", "system=toy", *data, *settings)
    assert "hits@10" in recsys("evaluate", "run_dir=run")
    assert "Artifact: run/artifact" in recsys("export", "run_dir=run")
    assert "Toy, on log" in recsys("report", "run_dir=run")
    assert "Toy trained on log" in (tmp_path / "run" / "report.html").read_text()
