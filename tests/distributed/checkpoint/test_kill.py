"""Killed by SIGKILL while training or writing, and gone on with, a run ends as ever."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from polars.testing import assert_frame_equal

from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.runs.checkpoints import BEST, CHECKPOINTS, LAST
from recsys.runs.metrics_log import read_metrics
from recsys.systems.runs import load_run

from ..ranks import run_script

PROCESS = Path(__file__).with_name("kill_process.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of ``kill_process.py``; each of the two was killed at least once on its way."""
    folder = tmp_path_factory.mktemp("runs")
    printed = run_script(PROCESS, folder, timeout=1800)
    for name in ("killed", "killed_background"):
        assert f"{name} 0 killed" in printed
    return folder


@pytest.mark.slow  # nine trainings on two ranks
@pytest.mark.parametrize("name", ["killed", "killed_background"])
def test_a_killed_run_ends_as_the_one_that_was_not(runs: Path, name: str) -> None:
    whole, killed = runs / "whole", runs / name
    assert_frame_equal(read_metrics(killed), read_metrics(whole), check_exact=True)
    folders = [folder / CHECKPOINTS for folder in (whole, killed)]
    listed = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert listed[0] == listed[1]
    for checkpoint in listed[0]:
        first, second = (open_checkpoint(folder / checkpoint) for folder in folders)
        second.check()
        assert first.step == second.step
        for part in ("state_dict", "fused_tables", "optimizer_states", "callbacks"):
            torch.testing.assert_close(
                second.whole()[part], first.whole()[part], rtol=0, atol=0, equal_nan=True
            )
    assert {BEST, LAST} < set(listed[0])
    assert load_run(killed).checkpoint.step == load_run(whole).checkpoint.step
