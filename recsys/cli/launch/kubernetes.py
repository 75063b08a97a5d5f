"""`launchers/kubernetes/manifest`: a training as a JobSet of Kubernetes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import typer
from omegaconf import MISSING

from recsys.cli.launch import elastic
from recsys.cli.launch.config import VARIABLE
from recsys.cli.launch.script import rendered
from recsys.cli.launch.tasks import World, plan_trainings, refuse_secrets, separate
from recsys.cli.main import invoke
from recsys.core.bounds import CountOrZero, Number, Processes, Settings
from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.core.errors import ConfigError
from recsys.runs.folder import time_stamp

#: Names of Kubernetes are those of DNS.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?([KMGTP]i?)?")

EXAMPLES = """Examples:

launchers/kubernetes/manifest experiment=dv365_ebnerd image=registry/recsys:cuda claim=work nodes=2
processes_per_node=8 gpus=true trainer=gpu
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class KubernetesConfig(Settings):
    """What `launchers/kubernetes/manifest` takes beside the settings of a training.

    Attributes:
        image: that of the Dockerfile, in a registry.
        claim: a PersistentVolumeClaim that every pod mounts, with data and run folders.
        mount: where it is mounted; the working directory.
        name: of the JobSet; None for that of the run.
        nodes: pods.
        processes_per_node: processes of a pod.
        gpus: whether each process has a GPU.
        cpus_per_process: cores.
        memory: of a pod.
        shared_memory: of ``/dev/shm``, a part of the memory.
        restarts: how often all pods are started anew.
        port: of the first pod, where all meet.
        environment: variables of every process.
        env_from: names of Secrets whose keys become variables.
    """

    image: str = MISSING
    claim: str = MISSING
    mount: str = "/srv/work"
    name: str | None = None
    nodes: Processes = 1
    processes_per_node: Processes = 1
    gpus: bool = False
    cpus_per_process: Processes = 8
    memory: str = "32Gi"
    shared_memory: str = "8Gi"
    restarts: CountOrZero = 10
    port: Annotated[int, Number(at_least=1_024, at_most=65_535)] = 29_500
    environment: dict[str, Any] = field(default_factory=dict)
    env_from: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what Kubernetes could not work with."""
        super().__post_init__()
        given = [("name", self.name), ("claim", self.claim)]
        for key, name in [*given, *(("env_from", one) for one in self.env_from)]:
            if name is not None and not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{key}={name} is no name of Kubernetes': small letters, digits and '-', at "
                    "most 42 of them."
                )
        for key, size in (("memory", self.memory), ("shared_memory", self.shared_memory)):
            if not _QUANTITY.fullmatch(size):
                raise ConfigError(f"{key}={size} is no quantity of Kubernetes'; write 64Gi.")
        for variable, value in self.environment.items():
            if not VARIABLE.fullmatch(str(variable)) or value is None:
                raise ConfigError(
                    f"environment has {variable!r}: {value!r}; write names of variables, each "
                    "with a value."
                )


def manifest_of(arguments: Sequence[str]) -> str:
    """The JobSet of a training.

    Raises:
        RecsysError: settings that do not fit, or several trainings.
    """
    refuse_secrets(arguments)
    own, others = separate(arguments, [one.name for one in fields(KubernetesConfig)])
    config = compose("kubernetes", KubernetesConfig, own)
    world = World(config.nodes, config.processes_per_node, config.gpus)
    name, tasks = plan_trainings(others, world, time_stamp())
    if len(tasks) > 1:
        raise ConfigError(f"{len(tasks)} trainings are given; make a manifest of each.")
    [task] = tasks
    job = config.name or f"recsys-{re.sub('[^a-z0-9]+', '-', name.lower())}"[:42].strip("-")
    command = [
        *("python", "-m", "torch.distributed.run", f"--nnodes={config.nodes}"),
        f"--nproc-per-node={config.processes_per_node}",
        # the index of the pod, which Kubernetes puts into its environment
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        *("--rdzv-backend=static", f"--rdzv-endpoint={job}-node-0-0.{job}:{config.port}"),
        *("-m", elastic.__name__, str(task.run_dir), *task.settings, elastic.AND_THEN),
        *(task.resume or task.settings),
    ]
    environment = {
        "OMP_NUM_THREADS": config.cpus_per_process,
        "PYTHONUNBUFFERED": 1,
        **config.environment,
    }
    return rendered(
        "jobset.yaml.jinja",
        name=name,
        job=job,
        config=config,
        command=command,
        environment=environment,
    )


@app.command(epilog=EXAMPLES)
def manifest(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of recsys train; those of conf/kubernetes.yaml are the launcher's.",
        ),
    ],
) -> None:
    """Print a training as a JobSet, for kubectl apply -f -."""
    output_console().print_lines(manifest_of(arguments))


def main() -> None:
    """Entry point of `launchers/kubernetes/manifest`."""
    sys.exit(invoke(sys.argv[1:], app, "launchers/kubernetes/manifest"))


if __name__ == "__main__":
    main()
