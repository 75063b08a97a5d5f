"""What a launcher is configured by: the cluster's side in conf/launcher, the job's beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from recsys.core.bounds import Count, CountOrZero, Number, OneOf, Processes, Rows, Settings
from recsys.core.errors import ConfigError

APPTAINER = "apptainer"
PYXIS = "pyxis"

#: The forms of sbatch's --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:…].
_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")
_MEMORY = re.compile(r"\d+[KMGT]?")
#: Options of sbatch that ask for GPUs; those of ``--gres`` and ``--tres-per-…`` may be others.
_GPU_OPTIONS = re.compile(
    r"--gpus(-per-(node|task|socket))?[= ]|--(gres|tres-per-\w+)[= ].*\bgpu\b"
)
#: What a shell can export.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Of the seconds between the signal and the limit, those for putting the job into the queue again.
SECONDS_TO_REQUEUE = 30


@dataclass(frozen=True)
class ContainerConfig(Settings):
    """The image that `recsys` is run from.

    Attributes:
        runtime: ``apptainer``, or ``pyxis`` for images of enroot; None for no container.
        image: a file (``.sif``, ``.sqsh``) or what the runtime can fetch.
        mounts: folders beside the working directory, as ``/there`` or ``/there:/here``.
    """

    runtime: Annotated[str, OneOf((APPTAINER, PYXIS))] | None = None
    image: str | None = None
    mounts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse a runtime without an image, and the reverse."""
        super().__post_init__()
        if (self.runtime is None) != (self.image is None):
            raise ConfigError(
                "launcher.container needs runtime and image together; of runtime="
                f"{self.runtime} and image={self.image} one is missing."
            )


@dataclass(frozen=True)
class SlurmConfig(Settings):
    """A cluster with SLURM, as conf/launcher describes it.

    Attributes:
        partition: None for the cluster's default.
        account: None for the user's default.
        time_limit: as sbatch takes it, for example ``04:00:00``; None for the partition's.
        processes_per_node: processes of a training or an evaluation on a node, a task each.
        gpus: whether each process of a training has a GPU. One for each is asked for unless
            ``options`` say how themselves.
        cpus_per_process: cores of a process.
        memory: of a node, for example ``64G``; None for the cluster's default.
        options: further options of sbatch, for example ``--qos=long``.
        signal_seconds: how long before the time limit a training is told to save.
        max_requeues: how often a job that was told to save goes back into the queue.
        setup: lines of shell before anything else, for example ``module load cuda``.
        environment: variables of every process, such as NCCL's and gloo's.
        command: the `recsys` command on the nodes; None for that of the Python which submits, or
            for ``recsys`` in a container.
        container: the image that it is run from.
    """

    partition: str | None = None
    account: str | None = None
    time_limit: str | None = None
    processes_per_node: Processes = 1
    gpus: bool = False
    cpus_per_process: Processes = 1
    memory: str | None = None
    options: list[str] = field(default_factory=list)
    signal_seconds: Annotated[int, Number(above=SECONDS_TO_REQUEUE, at_most=86_400)] = 180
    max_requeues: CountOrZero = 20
    setup: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    container: ContainerConfig = field(default_factory=ContainerConfig)

    def __post_init__(self) -> None:
        """Refuse what sbatch or the job could not work with."""
        super().__post_init__()
        if self.time_limit is not None and not _TIME.fullmatch(self.time_limit):
            raise ConfigError(
                f"launcher.time_limit={self.time_limit} is no time of SLURM's; write minutes, "
                "'hours:minutes:seconds' or 'days-hours:minutes:seconds'."
            )
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise ConfigError(
                f"launcher.memory={self.memory} is no size of SLURM's; write for example 64G."
            )
        unknown = [option for option in self.options if not option.startswith("--")]
        if unknown:
            raise ConfigError(
                f"launcher.options has {unknown[0]!r}; write options of sbatch as '--name=value'."
            )
        for variable, value in self.environment.items():
            if not VARIABLE.fullmatch(str(variable)) or value is None:
                raise ConfigError(
                    f"launcher.environment has {variable!r}: {value!r}; write names of variables, "
                    "each with a value, as {NCCL_SOCKET_IFNAME: ib0}."
                )

    @property
    def options_ask_for_gpus(self) -> bool:
        """Whether ``options`` say which GPUs a job gets, typed ones for example."""
        return any(_GPU_OPTIONS.match(option) for option in self.options)


@dataclass(frozen=True)
class SubmitConfig(Settings):
    """What `launchers/slurm/submit` takes beside the settings of the verb.

    Attributes:
        nodes: of a training, an evaluation or score; the other verbs run in one process.
        after: ids of jobs that must have ended well before this one starts.
        at_once: tasks of an array that may run at the same time; None for any number.
        launcher: the cluster.
    """

    nodes: Processes = 1
    after: list[Rows] = field(default_factory=list)
    at_once: Count | None = None
    launcher: SlurmConfig = field(default_factory=SlurmConfig)


@dataclass(frozen=True)
class TorchrunConfig(Settings):
    """What `launchers/torchrun/run` takes beside the settings of the verb.

    Attributes:
        nodes: hosts; the same command is given on each.
        processes_per_node: processes on each host, with a GPU each where the run uses GPUs.
        rendezvous: ``host:port`` of one of the hosts, where all of them meet.
        restarts: how often a training of which a process was lost goes on by itself from its last
            checkpoint.
        min_nodes: with how few hosts it goes on where others are lost; None for all.
    """

    nodes: Processes = 1
    processes_per_node: Processes = 1
    rendezvous: str | None = None
    restarts: CountOrZero = 0
    min_nodes: Processes | None = None

    def __post_init__(self) -> None:
        """Refuse what the hosts could not meet by."""
        super().__post_init__()
        if self.nodes > 1 and self.rendezvous is None:
            raise ConfigError(
                f"nodes={self.nodes} must meet somewhere: add rendezvous=host:port, with the name "
                "of one of the hosts and a port that is free there."
            )
        if self.rendezvous is not None and not re.fullmatch(r"[^:\s]+:\d+", self.rendezvous):
            raise ConfigError(f"rendezvous={self.rendezvous} is not of the form host:port.")
        if self.min_nodes is not None and not (self.min_nodes <= self.nodes and self.restarts):
            raise ConfigError(
                f"min_nodes={self.min_nodes} of nodes={self.nodes} needs restarts=…, how often a "
                "training may go on, and is no more than nodes."
            )
