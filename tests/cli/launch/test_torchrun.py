"""Trainings on plain hosts."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.cli.launch import torchrun
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
        (["seed=1,2"], "2 trainings are given; torchrun starts one"),
        (["processes_per_nodes=2"], "unknown key `processes_per_nodes`"),
        (["processes_per_node=0"], "processes_per_node is 0"),
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
        assert "-m recsys train" in capsys.readouterr().out


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
