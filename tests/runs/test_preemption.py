"""A run that is told to stop by SIGUSR1 saves its state and goes on exactly."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.cli.main import invoke
from recsys.core.errors import PreemptedError
from recsys.data.batches.requests import RequestBatch
from recsys.distributed.checkpoint.plugins import OneFileCheckpoints
from recsys.runs.checkpoints import CHECKPOINTS, LAST
from recsys.systems.dv365.module import DV365
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.runs import load_config, train
from tests.small_runs import TINY_RUN

from .run_checks import assert_equal_runs


@pytest.fixture(scope="module")
def whole(data_overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps, validated every 4, that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert invoke(["train", *TINY_RUN, *data_overrides, f"run_dir={folder}"]) == 0
    return folder


def _signal_in_step(patch: pytest.MonkeyPatch, step: int) -> None:
    """Have this process told to stop while it computes a step, counted from 1."""
    compute = DV365.training_step

    def told_to_stop(model: DV365, batch: RequestBatch, index: int) -> torch.Tensor:
        if model.trainer.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGUSR1)
        return compute(model, batch, index)

    patch.setattr(DV365, "training_step", told_to_stop)


@pytest.mark.parametrize("step", [5, 8], ids=["plain step", "validated step"])
def test_the_step_of_the_signal_is_saved_and_the_run_goes_on_exactly(
    run_config: DV365RunConfig, whole: Path, step: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _signal_in_step(patch, step)
        with pytest.raises(PreemptedError, match=f"step {step} is saved in .*last.ckpt"):
            train(run_config)
    folder = Path(str(run_config.run_dir))
    assert torch.load(folder / CHECKPOINTS / LAST, weights_only=True)["global_step"] == step
    train(replace(load_config(folder), resume=True))
    assert_equal_runs(folder, whole)


def test_a_step_that_is_due_anyway_is_written_once(
    run_config: DV365RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second write would remove the first before it, and with it the only checkpoint."""
    written: list[str] = []
    write = OneFileCheckpoints.prepare

    def noted(plugin: OneFileCheckpoints, checkpoint: dict[str, Any], path: Path) -> Any:
        written.append(path.name)
        return write(plugin, checkpoint, path)

    monkeypatch.setattr(OneFileCheckpoints, "prepare", noted)
    _signal_in_step(monkeypatch, 3)
    with pytest.raises(PreemptedError, match=r"step 3 is saved in .*last\.ckpt"):
        train(run_config)
    assert written == ["step-00000003.ckpt"]
    last = Path(str(run_config.run_dir)) / CHECKPOINTS / LAST
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_a_run_told_to_stop_in_its_last_step_finishes(
    run_config: DV365RunConfig, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _signal_in_step(monkeypatch, 12)
    assert_equal_runs(train(run_config), whole)


def test_the_command_says_how_to_go_on_and_ends_with_a_code_of_its_own(
    data_overrides: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _signal_in_step(monkeypatch, 2)
    folder = tmp_path / "run"
    assert (
        invoke(["train", *TINY_RUN, *data_overrides, f"run_dir={folder}"])
        == PreemptedError.EXIT_CODE
    )
    assert f"recsys train run_dir={folder} resume=true" in capsys.readouterr().err


@pytest.mark.parametrize(
    "left", ["dataset.json", "environment.json", "config.yaml.7.partial", "logs"]
)
def test_what_a_launcher_or_a_death_at_the_beginning_leaves_does_not_take_a_folder(
    run_config: DV365RunConfig, left: str
) -> None:
    folder = Path(str(run_config.run_dir))
    (folder / left).mkdir(parents=True) if left == "logs" else folder.mkdir()
    if left != "logs":
        (folder / left).write_text("{")
    settings = replace(run_config.trainer, max_steps=1)
    assert train(replace(run_config, trainer=settings)) == folder
