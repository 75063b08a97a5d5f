"""`optim=shampoo` in a run: clipping, schedule, bf16 and an exact resume within an epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from polars.testing import assert_frame_equal

from recsys.cli import train
from recsys.core.composition import compose, load
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.optim.dense import DenseOptimConfig
from recsys.optim.shampoo.run_config import ShampooConfig
from recsys.runs.checkpoints import CHECKPOINTS, LAST
from recsys.runs.metrics_log import read_metrics
from recsys.systems.choice import compose_run
from recsys.systems.dv365.module import OptimConfig
from recsys.systems.dv365.system import DV365RunConfig
from tests.small_runs import TINY_RUN

SHAMPOO = (
    "optim=shampoo",
    "optim.dense.shampoo.precondition_frequency=2",
    "optim.dense.shampoo.start_preconditioning_step=3",
    "optim.dense.shampoo.max_preconditioner_dim=64",
    "trainer.gradient_clip=0.5",
    "trainer.precision=bf16-mixed",
    "optim.schedule.final_fraction=1",
)


def run(folder: Path, overrides: tuple[str, ...], *more: str) -> Path:
    train.run([*TINY_RUN, *overrides, *SHAMPOO, f"run_dir={folder}", *more])
    return folder


def test_the_file_says_what_the_class_does() -> None:
    config = load(conf_dir() / "optim" / "shampoo.yaml", DenseOptimConfig)
    assert config.dense.shampoo == ShampooConfig()
    of_tables = load(conf_dir() / "optim" / "shampoo.yaml", OptimConfig)
    assert of_tables.slice_tables == OptimConfig().slice_tables


def test_unknown_settings_are_errors() -> None:
    for wrong, sentence in (
        ("optim.dense.shampoo.frequency=5", "frequency"),
        ("optim.dense.shampoo.grafting=adamw", "grafting is 'adamw', it must be one of none"),
        ("optim.dense.shampoo.root_inverse=svd", "root_inverse is 'svd'"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            compose("train", DV365RunConfig, ["experiment=demo", "optim=shampoo", wrong])


@pytest.mark.parametrize(
    "experiment", ["dv365_kuairand", "nxtpost_kuairand", "sasrec_ml1m", "post_tower_movielens"]
)
def test_any_experiment_takes_it(experiment: str) -> None:
    config = compose_run([f"experiment={experiment}", "optim=shampoo"])
    assert config.optim.dense.shampoo == ShampooConfig()


def last_of(folder: Path) -> dict[str, Any]:
    return open_checkpoint(folder / CHECKPOINTS / LAST).whole()


def assert_same(cut: Path, whole: Path) -> None:
    """Losses of every step, weights, and the state of Shampoo after the last."""
    losses = [read_metrics(one).filter(metric="train/loss").sort("step") for one in (cut, whole)]
    assert_frame_equal(*losses, check_exact=True)
    last = [last_of(one) for one in (cut, whole)]
    for part in (
        [one["state_dict"] for one in last],
        [one["optimizer_states"][0]["state"] for one in last],
    ):
        torch.testing.assert_close(*part, rtol=0, atol=0)


def test_a_run_cut_within_an_epoch_resumes_exactly(
    data_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", data_overrides)
    cut = run(tmp_path / "cut", data_overrides, "trainer.max_steps=6")
    train.run([f"run_dir={cut}", "resume=true", "trainer.max_steps=12"])
    assert_same(cut, whole)
    state = last_of(whole)["optimizer_states"][0]["state"][0]
    assert state["step"] == 12
    root = state["block_0.inverse_root_0"]
    assert root.dtype == torch.float32 and not torch.equal(root, torch.eye(len(root)))


@pytest.mark.slow  # four trainings, most of them of two processes
def test_two_processes_share_the_state_and_one_goes_on_with_it(
    data_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    two = ("strategy=torchrec", "trainer.devices=2", "trainer.precision=32-true")
    whole = run(tmp_path / "whole", data_overrides, *two)
    cut = run(tmp_path / "cut", data_overrides, *two, "trainer.max_steps=6")
    alone = tmp_path / "alone"
    shutil.copytree(cut, alone)
    further = ("resume=true", "trainer.max_steps=12")
    train.run([f"run_dir={cut}", *further])
    assert_same(cut, whole)
    train.run([f"run_dir={alone}", *further, "strategy.name=single", "trainer.devices=1"])
    states = [last_of(one)["optimizer_states"][0]["state"] for one in (alone, whole)]
    assert [set(one) for one in states[0].values()] == [set(one) for one in states[1].values()]
