"""Trainings on plain hosts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recsys.cli.launch.torchrun import command_of
from recsys.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


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
