"""Where a run was made: git revision, versions of the packages, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.core.paths import PACKAGE
from recsys.core.secrets import mask_words
from recsys.core.version import VERSION

ENVIRONMENT_FILE = "environment.json"

_KIND = "environment of a run"

PACKAGES = (
    "torch",
    "torchrec",
    "fbgemm-gpu",
    "fbgemm-gpu-cpu",
    "lightning",
    "torchmetrics",
    "torchdata",
    "polars",
    "numpy",
)


def describe_environment() -> dict[str, Any]:
    """Everything that is written to ``environment.json``."""
    return {
        "recsys": VERSION,
        "git": git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "hardware": _hardware(),
        "command": [Path(sys.argv[0]).name, *mask_words(sys.argv[1:])],
    }


def write_environment(folder: Path) -> None:
    """Write ``environment.json`` into a run folder."""
    write_json(folder / ENVIRONMENT_FILE, _KIND, describe_environment())


def read_environment(folder: Path) -> dict[str, Any]:
    """``environment.json`` of a run folder.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    mend = "restore it from a copy, or train again."
    return read_json(folder / ENVIRONMENT_FILE, _KIND, ArtifactError, mend)


def git_revision() -> dict[str, Any] | None:
    """The checkout's commit and whether tracked files were changed; None outside a checkout."""
    root = PACKAGE.parent
    try:
        revision = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"revision": revision, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return finished.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    import torch  # seconds, which only those wait who ask

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "torch_threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
