"""`recsys sweep`, and a training that an agent of wandb starts, in processes of their own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from recsys.cli.main import TERMINATED, invoke

COMMAND = [sys.executable, "-m", "recsys"]
SIMULATION = (
    "simulator=demo",
    "simulator.users=60",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=100",
)
SETTINGS = (
    "experiment=demo",
    "model.dimension=8",
    "loader.batch_requests=16",
    "trainer.max_steps=6",
    "trainer.validate_every_n_steps=2",
    "trainer.progress_bar=false",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that point an experiment to a small simulated log."""
    folder = tmp_path_factory.mktemp("data")
    assert invoke(["data", "simulate", *SIMULATION, f"out={folder / 'log'}"]) == 0
    return (f"data.path={folder / 'log'}", f"data.out={folder / 'prepared'}", "data.name=tiny")


def write_sweep(folder: Path, data: tuple[str, ...], *further: str, **parameters: object) -> Path:
    """A grid over ``parameters``."""
    settings = [*SETTINGS, *data, *further]
    content = {
        "program": "recsys",
        "command": ["${program}", "train", *settings, "${args_no_hyphens}"],
        "method": "grid",
        "metric": {"name": "val/ne/mean", "goal": "minimize"},
        "parameters": {name: {"values": values} for name, values in parameters.items()},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(tmp_path: Path, data: tuple[str, ...]) -> None:
    """Two trials, and between them one that cannot train; killed while the first one trains."""
    out = tmp_path / "out"
    path = write_sweep(tmp_path, data, **{"trainer.accelerator": ["cpu", "nonsense", "auto"]})
    command = [*COMMAND, "sweep", str(path), "--local", f"out={out}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
        deadline = time.monotonic() + 200
        while not (out / "trial_000.log").exists():
            assert killed.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)  # the trial lives on: it is waited for
    states = [one["state"] for one in json.loads((out / "sweep.json").read_text())["trials"]]
    assert states == ["begun"]

    finished = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert finished.returncode == 0, finished.stderr
    trials = json.loads((out / "sweep.json").read_text())["trials"]
    assert [one["state"] for one in trials] == ["finished", "failed", "finished"]
    assert [len(one["history"]) for one in trials] == [3, 0, 3]
    assert "The trainer cannot be built" in trials[1]["problem"]
    assert (out / "trial_000.log").read_text().count("$ recsys train") == 1
    best = min(trials, key=lambda one: min(one["history"], default=9))
    printed = f"trainer.accelerator={best['parameters']['trainer.accelerator']}"
    words = " ".join(finished.stdout.split())  # lines are broken somewhere
    assert "Best: recsys train experiment=demo" in words and printed in words
    assert "the report split, which no sweep reads" in words
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    for trial in ("trial_000", "trial_002"):
        metrics = json.loads((out / trial / "metrics.json").read_text())
        assert metrics and not any(name.startswith("report/") for name in metrics)

    logs = {log: log.stat().st_mtime_ns for log in out.glob("*.log")}
    again = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert logs == {log: log.stat().st_mtime_ns for log in out.glob("*.log")}


@pytest.mark.slow
def test_a_sweep_killed_with_its_trial_resumes_the_trial(
    tmp_path: Path, data: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    longer = ("trainer.max_steps=40", "trainer.checkpoint_every_n_steps=2")
    path = write_sweep(tmp_path, data, seed=[0])
    command = [*COMMAND, "sweep", str(path), "--local", f"out={out}", *longer]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as killed:
        deadline = time.monotonic() + 200
        while not (out / "trial_000" / "checkpoints" / "last.ckpt").exists():
            assert killed.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(killed.pid, signal.SIGKILL)
    finished = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert finished.returncode == 0, finished.stderr
    log = (out / "trial_000.log").read_text()
    assert f"$ recsys train run_dir={out / 'trial_000'} resume=true" in log
    [trial] = json.loads((out / "sweep.json").read_text())["trials"]
    assert trial["state"] == "finished" and len(trial["history"]) == 20


@pytest.mark.slow
def test_a_training_that_is_terminated_has_not_finished(
    tmp_path: Path, data: tuple[str, ...]
) -> None:
    """As Hyperband ends a trial, here and by an agent of wandb."""
    run_dir = tmp_path / "run"
    endless = ("trainer.max_steps=-1", "trainer.max_epochs=100000", f"run_dir={run_dir}")
    with subprocess.Popen([*COMMAND, "train", *SETTINGS, *data, *endless]) as training:
        deadline = time.monotonic() + 200
        while not (run_dir / "checkpoints" / "last.ckpt").exists():
            assert training.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        training.terminate()
        assert training.wait(60) == TERMINATED
    assert not (run_dir / "metrics.json").exists()


@pytest.mark.slow
def test_an_agent_of_wandb_makes_one_run_of_two_ranks(
    tmp_path: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.wandb_agent import Agent

    ranks = ("strategy=torchrec", "trainer.devices=2", "logger=wandb")
    place = f"run_dir={tmp_path}/${{oc.env:WANDB_RUN_ID}}"
    path = write_sweep(tmp_path, data, *ranks, place, seed=[3])
    content = yaml.safe_load(path.read_text())
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "agent"))
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")  # as `wandb agent` sets it
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "set by the agent")  # and taken back after the test
    agent = Agent(None, multiprocessing.Queue(), sweep_id="s1")
    agent._sweep_command = list(content["command"])
    agent._command_run({"run_id": "ab12", "args": {"seed": {"value": 3}}, "program": "recsys"})
    assert agent._run_processes["ab12"].wait(500) == 0
    run_dir = tmp_path / "ab12"
    assert (run_dir / "wandb_run_id").read_text() == "ab12"
    assert [file.name for file in run_dir.glob("wandb/offline-run-*/*.wandb")] == ["run-ab12.wandb"]
    assert (run_dir / "metrics.json").exists()


@pytest.mark.parametrize("words", [("--local",), ("dry_run=true",)])
def test_mistakes_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    path = write_sweep(tmp_path, (), **{"model.dimensions": [8]})
    assert invoke(["sweep", str(path), f"out={tmp_path / 'out'}", *words]) == 2
    assert "did you mean `model.dimension`" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("trial*"))


def test_a_dry_run_prints_the_first_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(tmp_path, (), **{"model.dimension": [8, 16]}, seed=[0, 1])
    path.write_text(path.read_text().replace("- model.dimension=8\n", ""))
    assert invoke(["sweep", str(path), "dry_run=true", "trainer.max_epochs=2"]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("recsys train experiment=demo")
    assert printed.endswith("trainer.max_epochs=2 model.dimension=8 seed=0")
