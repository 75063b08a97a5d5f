"""Manifests for Kubernetes, against the schema of what they use."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from recsys.cli.launch import kubernetes
from recsys.cli.launch.kubernetes import manifest_of
from recsys.cli.main import invoke
from recsys.core.errors import ConfigError
from tests.cli.launch.jobset_schema import JOBSET

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ("experiment=demo", "image=registry/recsys:cpu", "claim=work", "run_dir=runs/mine")


def checked(*settings: str) -> dict[str, Any]:
    """The manifest, which fits the schema."""
    found: dict[str, Any] = yaml.safe_load(manifest_of([*NEEDED, *settings]))
    jsonschema.validate(found, JOBSET)
    return found


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    [job] = manifest["spec"]["replicatedJobs"]
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def test_pods_meet_at_the_first_and_a_run_that_has_begun_goes_on() -> None:
    found = checked("nodes=3", "processes_per_node=2", "name=mine", "restarts=4")
    assert found["spec"]["failurePolicy"] == {"maxRestarts": 4}
    [job] = found["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["completions"] == job["template"]["spec"]["parallelism"] == 3
    command = container_of(found)["command"]
    assert "--rdzv-endpoint=mine-node-0-0.mine:29500" in command
    assert "--node-rank=$(JOB_COMPLETION_INDEX)" in command and "--nnodes=3" in command
    cut = command.index("--then")
    first, then = command[command.index("runs/mine") : cut], command[cut:]
    assert "experiment=demo" in first and "strategy=torchrec" in first
    assert "resume=true" in then and "experiment=demo" not in then
    assert "nvidia.com/gpu" not in container_of(found)["resources"]["limits"]


def test_gpus_memory_secrets_and_what_yaml_would_read_otherwise() -> None:
    found = checked(
        *("gpus=true", "trainer=gpu", "processes_per_node=8", "memory=900Gi", "env_from=[wandb]"),
        *("environment={NCCL_DEBUG: WARN, FLAG: 'yes'}", "data.name=on"),
    )
    container = container_of(found)
    assert container["resources"]["limits"] == {
        "cpu": "64",
        "memory": "900Gi",
        "nvidia.com/gpu": "8",
    }
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}]
    assert {"name": "FLAG", "value": "yes"} in container["env"]
    assert "data.name=on" in container["command"]


def test_the_example_composes(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = kubernetes.EXAMPLES.strip().split("\n\n")[1:]
    program, *words = shlex.split(example)
    assert (ROOT / program).is_file()
    assert invoke(words, kubernetes.app, program) == 0
    jsonschema.validate(yaml.safe_load(capsys.readouterr().out), JOBSET)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["seed=1,2"], "2 runs cannot share run_dir"),
        (["name=Mine"], "name=Mine is no name of Kubernetes'"),
        (["memory=32 GB"], "memory=32 GB is no quantity"),
        (["gpus=true"], "gives every process a GPU"),
        (["environment={2A: c}"], "write names of variables"),
        (["nodes=0"], "nodes is 0"),
    ],
)
def test_what_cannot_work_is_a_sentence(settings: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        manifest_of([*NEEDED, *settings])
