"""`recsys train strategy=torchrec trainer.devices=2` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from recsys.cli.simulate import configure
from recsys.data.simulator.simulate import simulate
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.evaluation.config import EvaluateConfig
from recsys.runs.checkpoints import CHECKPOINTS, LAST
from recsys.runs.metrics_log import read_metrics
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import load_run
from recsys.systems.runs import train as train_here

SIMULATION = (
    "simulator=demo",
    "simulator.users=60",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=100",
)
#: The 13 requests of a batch divide no split, and so the ranks' batches differ in size.
RUN = (
    "experiment=demo",
    "model.dimension=8",
    "loader.batch_requests=13",
    "optim.schedule.warmup_steps=2",
    "optim.schedule.final_fraction=1",
    "trainer.validate_every_n_steps=2",
    "trainer.checkpoint_every_n_steps=1",
    "trainer.log_every_n_steps=1",
    "trainer.progress_bar=false",
)
TWO = ("strategy=torchrec", "trainer.devices=2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated log."""
    folder = tmp_path_factory.mktemp("workspace")
    config = configure([*SIMULATION, f"out={folder / 'log'}"])
    simulate(config.simulator, Path(config.out))
    return folder


def recsys(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "recsys", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def train(workspace: Path, name: str, *overrides: str) -> Path:
    """A run of its own folder in ``workspace``."""
    place = [f"data.path={workspace / 'log'}", f"data.out={workspace / 'prepared'}"]
    run_dir = workspace / name
    finished = recsys(["train", *RUN, *place, "data.name=tiny", f"run_dir={run_dir}", *overrides])
    assert finished.returncode == 0, finished.stderr
    return run_dir


@pytest.fixture(scope="module")
def run_dir(workspace: Path) -> Path:
    """What two processes have trained."""
    return train(workspace, "two", *TWO, "trainer.max_steps=4")


def test_one_rank_writes_the_run_folder(run_dir: Path) -> None:
    log = read_metrics(run_dir)
    assert log.filter(metric="train/loss")["step"].to_list() == [1, 2, 3, 4]
    assert not log.select("step", "metric").is_duplicated().any()
    plan = json.loads((run_dir / "plan.json").read_text())
    assert plan["world_size"] == 2
    names = {table["name"].rpartition(".")[2] for table in plan["tables"]}
    assert {"item_id", "user_id", "explicit_positive_item_plain_any"} <= names
    assert "backbone/item_id" in (run_dir / "plan.txt").read_text()


def test_a_refused_resume_leaves_the_plan(run_dir: Path) -> None:
    files = [run_dir / "plan.json", run_dir / "plan.txt"]
    before = [file.read_text() for file in files]
    other = ["trainer.devices=1", "trainer.max_steps=5", "model.dimension=4"]
    refused = recsys(["train", f"run_dir={run_dir}", "resume=true", *other])
    assert refused.returncode == 2
    assert "go on with the configuration it was trained with" in refused.stderr
    assert [file.read_text() for file in files] == before


def test_one_process_measures_what_the_two_have_validated(run_dir: Path) -> None:
    """Every row of the choose split once: with one lost or counted twice, sums would differ."""
    validated = json.loads((run_dir / "metrics.json").read_text())
    run = load_run(run_dir)
    assert validated["val/ne/mean"]["value"] == pytest.approx(
        read_metrics(run_dir).filter(metric="val/ne/mean", step=run.checkpoint.step)["value"][0],
        rel=1e-12,
    )
    measured = evaluate(EvaluateConfig(run_dir=str(run_dir), split="choose", baselines=[]))
    for name in ("val/ne/liked", "val/auc/liked", "val/calibration/liked", "val/mse/watch_time"):
        assert measured[name]["value"] == pytest.approx(validated[name]["value"], rel=1e-5)


@pytest.mark.slow  # three trainings
def test_a_run_goes_on_exactly_on_two_processes_and_goes_on_on_one(
    workspace: Path, run_dir: Path
) -> None:
    cut = train(workspace, "cut", *TWO, "trainer.max_steps=2")
    alone = workspace / "alone"
    subprocess.run(["cp", "-r", cut, alone], check=True)
    further = ["resume=true", "trainer.max_steps=4"]
    assert recsys(["train", f"run_dir={cut}", *further]).returncode == 0
    whole, resumed = (
        open_checkpoint(folder / CHECKPOINTS / LAST).whole() for folder in (run_dir, cut)
    )
    for part in ("state_dict", "fused_tables", "optimizer_states"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
    one = ["strategy.name=single", "trainer.devices=1"]
    assert recsys(["train", f"run_dir={alone}", *further, *one]).returncode == 0
    assert load_run(alone, "last").checkpoint.step == 4


@pytest.mark.slow
def test_bfloat16_and_accumulation_under_several_processes(workspace: Path) -> None:
    settings = ("trainer.precision=bf16-mixed", "trainer.accumulate_batches=2")
    run_dir = train(workspace, "mixed", *TWO, *settings, "trainer.max_steps=3")
    losses = read_metrics(run_dir).filter(metric="train/loss")["value"]
    assert len(losses) >= 3 and losses.is_finite().all()
    assert load_run(run_dir, "last").checkpoint.step == 3


def test_the_strategy_with_one_process_trains_as_no_strategy_does(workspace: Path) -> None:
    """Same batches, same first weights, same dropout: the losses differ by rounding."""
    place = [f"data.path={workspace / 'log'}", f"data.out={workspace / 'prepared'}"]
    place += ["data.name=tiny", "trainer.max_steps=4"]
    logs = []
    for strategy in ("single", "torchrec"):
        overrides = [*RUN, *place, f"strategy={strategy}", f"run_dir={workspace / strategy}"]
        logs.append(read_metrics(train_here(compose_run(overrides))))
    assert (workspace / "torchrec" / "plan.json").is_file()
    for metric in ("train/loss", "val/loss", "val/ne/mean"):
        plain, sharded = (log.filter(metric=metric).sort("step") for log in logs)
        assert sharded["step"].to_list() == plain["step"].to_list()
        assert sharded["value"].to_list() == pytest.approx(plain["value"].to_list(), rel=1e-4)


@pytest.mark.slow  # two processes for a sentence; test_processes.py has the fast one
def test_a_problem_of_the_data_is_said_once_and_ends_all(workspace: Path) -> None:
    arguments = ["train", *RUN, *TWO, "data.path=nowhere", f"run_dir={workspace / 'none'}"]
    finished = recsys(arguments)
    assert finished.returncode == 2
    assert finished.stderr.count("holds no whole simulated log") == 1
    assert "Traceback" not in finished.stderr
