"""What a node says of itself, and what it measured."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import torch

from recsys.core.environment import describe_environment

#: The line of the kernel's NVIDIA driver that has its version.
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Facts:
    """A node before anything was exchanged.

    Attributes:
        node: its name.
        versions: of what is installed, by name.
        gpus: names of its GPUs.
    """

    node: str
    versions: dict[str, str]
    gpus: list[str]


@dataclass(frozen=True)
class Measured:
    """What a process measured; rates in GiB per second that it sends.

    Attributes:
        sums_are_right: whether the all-reduce gave what it must.
        in_node: with each other process of its node.
        across: with processes of other nodes.
        all_reduce: with all, by the bytes that a ring sends.
        all_to_all: with all.
    """

    sums_are_right: bool
    in_node: list[float] = field(default_factory=list)
    across: list[float] = field(default_factory=list)
    all_reduce: float | None = None
    all_to_all: float | None = None


def own_name() -> str:
    """The name of this node: SLURM's, or the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def facts_of(node: str) -> Facts:
    """What this node has."""
    found = describe_environment()
    versions = {"recsys": found["recsys"], "python": found["python"], **found["packages"]}
    if found["git"] is not None:
        versions["git"] = found["git"]["revision"] + "+changed" * found["git"]["dirty"]
    if torch.version.cuda is not None:
        versions["CUDA"] = torch.version.cuda
    if torch.cuda.is_available():
        versions["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    if _DRIVER.is_file():
        versions["driver"] = " ".join(_DRIVER.read_text().split("\n")[0].split()[:8])
    return Facts(node, versions, found["hardware"]["gpus"])
