"""Trainings on plain hosts."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recsys.cli.launch import torchrun
from recsys.cli.launch.elastic import settings_now
from recsys.cli.launch.tasks import World
from recsys.cli.launch.torchrun import command_of
from recsys.cli.main import invoke
from recsys.core.errors import ConfigError
from recsys.runs.metrics_log import read_metrics
from tests.small_runs import TINY_SIMULATION

ROOT = Path(__file__).resolve().parents[3]
RUN = ROOT / "launchers" / "torchrun" / "run"


def test_hosts_meet_at_the_rendezvous_and_log_into_the_run_folder() -> None:
    command = command_of(
        [
            *("experiment=demo", "run_dir=runs/mine", "nodes=2", "processes_per_node=4"),
            "rendezvous=host1:29500",
        ]
    )
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    for word in (
        *("--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=host1:29500", "--rdzv-id=demo"),
        *("--log-dir=runs/mine/logs", "strategy=torchrec", "trainer.num_nodes=2"),
        "trainer.devices=4",
    ):
        assert word in command
    assert "--standalone" in command_of(["experiment=demo", "processes_per_node=2"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["nodes=2", "run_dir=a"], "add rendezvous=host:port"),
        (["nodes=2", "rendezvous=host1"], "not of the form host:port"),
        (["nodes=2", "rendezvous=host1:29500"], "add run_dir=…, the same on all"),
        (["seed=1,2"], "2 runs are given; torchrun starts one"),
        (["processes_per_nodes=2"], "unknown key `processes_per_nodes`"),
        (["processes_per_node=0"], "processes_per_node is 0"),
        (["min_nodes=1"], "needs restarts=…, how often"),
    ],
)
def test_what_cannot_work_is_a_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        command_of(["experiment=demo", *overrides])


def test_help_has_examples_that_compose(capsys: pytest.CaptureFixture[str]) -> None:
    for example in torchrun.EXAMPLES.strip().split("\n\n")[1:]:
        program, *words = shlex.split(example)
        assert (ROOT / program).is_file()
        assert invoke([*words, "--dry-run"], torchrun.app, program) == 0
        assert re.search("-m recsys (train|evaluate)", capsys.readouterr().out)


def test_other_verbs_are_divided_checked_or_refused() -> None:
    asked = command_of(["evaluate", "run_dir=runs/mine", "processes_per_node=4"])
    assert asked[-3:] == ["evaluate", "run_dir=runs/mine", "processes=4"]
    asked = command_of(["preflight", "nodes=2", "rendezvous=host1:29500", "out=found"])
    assert asked[-3:] == ["preflight", "out=found", "processes=2"]
    with pytest.raises(ConfigError, match="`export` runs in one process"):
        command_of(["export", "run_dir=runs/mine"])
    with pytest.raises(ConfigError, match="is of a training, not of `evaluate`"):
        command_of(["evaluate", "run_dir=runs/mine", "restarts=1"])


def test_a_training_that_may_lose_hosts_is_told_how_to_begin_and_how_to_go_on() -> None:
    place = ("run_dir=runs/mine", "nodes=4", "rendezvous=host1:29500")
    asked = command_of(["experiment=demo", *place, "min_nodes=2", "restarts=3"])
    assert "--nnodes=2:4" in asked and "--max-restarts=3" in asked
    cut = asked.index("recsys.cli.launch.elastic")
    run_dir, *words = asked[cut + 1 :]
    assert run_dir == "runs/mine"
    first, then = words[: words.index("--then")], words[words.index("--then") + 1 :]
    assert settings_now(first, then, True, World(3, 2)) == [
        *("run_dir=runs/mine", "resume=true", "trainer.num_nodes=3", "trainer.devices=2")
    ]
    assert settings_now(first, then, False, World(4, 1))[-2:] == [
        *("trainer.num_nodes=4", "trainer.devices=1")
    ]
    assert "experiment=demo" in first and first.count("trainer.num_nodes=4") == 1


@pytest.mark.slow
def test_two_processes_of_one_host_train_and_log_into_the_run_folder(tmp_path: Path) -> None:
    assert invoke(["data", "simulate", *TINY_SIMULATION, f"out={tmp_path / 'log'}"]) == 0
    settings = [
        *("experiment=demo", "processes_per_node=2", "run_dir=run", "data.path=log"),
        *("data.out=prepared", "model.dimension=8", "trainer.max_steps=2"),
        *("trainer.log_every_n_steps=1", "trainer.progress_bar=false"),
    ]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "VIRTUAL_ENV": sys.prefix}
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [RUN, *settings], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("Run folder: run") == 1
    run_dir = tmp_path / "run"
    assert read_metrics(run_dir).filter(metric="train/loss")["step"].to_list() == [1, 2]
    logs = sorted(path.parent.name for path in run_dir.glob("logs/**/stderr.log"))
    assert logs == ["0", "1"]


@pytest.mark.slow  # torchrun waits for the lost host
def test_a_training_goes_on_with_the_host_that_is_left(tmp_path: Path) -> None:
    """Two hosts, which are two torchruns of this machine; the second is lost with all it runs."""
    assert invoke(["data", "simulate", *TINY_SIMULATION, f"out={tmp_path / 'log'}"]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    steps = 60
    settings = [
        *("experiment=demo", "run_dir=run", "data.path=log", "data.out=prepared"),
        *("nodes=2", "min_nodes=1", "restarts=2", f"rendezvous=localhost:{port}"),
        *("model.dimension=8", "loader.batch_requests=4", f"trainer.max_steps={steps}"),
        *("trainer.checkpoint_every_n_steps=2", "trainer.log_every_n_steps=1"),
        *("trainer.validate_every_n_steps=30", "trainer.progress_bar=false"),
    ]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "VIRTUAL_ENV": sys.prefix}
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    logs = [tmp_path / f"host{number}.txt" for number in range(2)]
    run_dir = tmp_path / "run"
    hosts = []
    try:
        for log in logs:
            with log.open("wb") as out:
                hosts.append(
                    subprocess.Popen(
                        [RUN, *settings], cwd=tmp_path, env=variables, stdout=out, stderr=out
                    )
                )
            time.sleep(1)  # the first of them is the host of the rendezvous
        deadline = time.monotonic() + 400
        while not (run_dir / "checkpoints" / "last.ckpt").exists():
            assert time.monotonic() < deadline and hosts[0].poll() is None, logs[0].read_text()
            time.sleep(0.05)
        _strike(hosts[1])
        assert hosts[0].wait(400) == 0, logs[0].read_text()[-3000:]
    finally:
        for host in hosts:
            _strike(host)
    losses = read_metrics(run_dir).filter(metric="train/loss")["step"].to_list()
    assert losses == list(range(1, steps + 1))
    assert json.loads((run_dir / "plan.json").read_text())["world_size"] == 1


def _strike(host: subprocess.Popen[bytes]) -> None:
    """Kill a host with all that it runs."""
    if host.poll() is None:
        for process in psutil.Process(host.pid).children(recursive=True):
            process.kill()
        host.kill()
        host.wait()
