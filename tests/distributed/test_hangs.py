"""Two ranks of a training of which one hangs, or is slow, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.distributed.heartbeats import COLLECTIVES
from recsys.runs.files import LOGS
from recsys.runs.rank_watch import STEP_TIMES

from .test_train import RUN, SIMULATION

SCRIPT = Path(__file__).with_name("hanging_process.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated log."""
    from recsys.cli.main import invoke

    folder = tmp_path_factory.mktemp("workspace")
    assert invoke(["data", "simulate", *SIMULATION, f"out={folder / 'log'}"]) == 0
    return folder


def train(workspace: Path, kind: str, *overrides: str) -> tuple[Path, int, str]:
    """The run folder, the code and the messages of a training with an odd rank 1."""
    run_dir = workspace / kind.replace(" ", "_")
    place = (f"data.path={workspace / 'log'}", f"data.out={workspace / 'prepared'}")
    settings = ("data.name=tiny", "strategy=torchrec", "trainer.devices=2", f"run_dir={run_dir}")
    finished = subprocess.run(
        [sys.executable, SCRIPT, "train", *RUN, *place, *settings, *overrides],
        env=os.environ | {"HANGING": kind, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return run_dir, finished.returncode, finished.stderr


def test_a_rank_that_sleeps_is_named_with_its_step_and_stack(workspace: Path) -> None:
    run_dir, code, said = train(workspace, "sleeps", "strategy.hang_minutes=0.1")
    assert code == 2
    [sentence] = [line for line in said.splitlines() if "hangs" in line]
    assert "Rank 1 (" in sentence and "Rank 0" not in sentence
    assert "s it has been in step 4, in odd_step (tests/distributed/hanging_process.py:" in sentence
    assert "The others wait: rank 0 in step 4" in sentence
    [folder] = [path for path in (run_dir / LOGS).iterdir() if path.is_dir()]
    assert f"its stack is in {folder / 'rank-1.log'}" in sentence
    stack = (folder / "rank-1.log").read_text()
    assert "hanging_process.py" in stack and "in odd_step" in stack
    assert "all_reduce" in (folder / "rank-0.log").read_text() or "backward" in sentence
    if (run_dir / LOGS / f"{COLLECTIVES}0").exists():
        assert "number" in sentence  # which collective, as the flight recorder counts them
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("stands still", "its process stands still or its node is gone"),
        ("another exchange", "waiting in barrier"),
    ],
)
def test_other_ranks_that_hang_are_named(workspace: Path, kind: str, words: str) -> None:
    _, code, said = train(workspace, kind, "strategy.hang_minutes=0.1")
    assert code == 2
    [sentence] = [line for line in said.splitlines() if "hangs" in line]
    assert words in sentence.partition("Rank 1 (")[2]


@pytest.mark.slow
def test_a_slow_rank_is_told_and_its_times_are_kept(workspace: Path) -> None:
    settings = ("trainer.max_steps=6", "trainer.validate_every_n_steps=6")
    run_dir, code, said = train(workspace, "slow", *settings)
    assert code == 0
    assert "Rank 1 (" in said and "is slow: a step takes it" in said
    times = pl.read_csv(run_dir / LOGS / STEP_TIMES)
    by_rank = times.group_by("rank").agg(pl.col("own_seconds_per_step").mean()).sort("rank")
    own = by_rank["own_seconds_per_step"].to_list()
    assert own[1] > 1.0 and own[1] > own[0]  # it sleeps for a second in every step
