"""An environment of its own for a peer that a benchmark measures beside this project."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import torch

from recsys.core.console import message_console

#: By a peer's name, its package on PyPI with its extras, and the version that is measured.
PEERS = {
    "rectools": ("rectools[torch]", "0.19.0"),
    "replay": ("replay-rec[torch]", "0.22.0"),
}


def cache() -> Path:
    """Where benchmarks keep what is long in the making."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "recsys" / "benchmarks"


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, made where it is absent; the same torch as ours.

    Args:
        name: of the peer, one of `PEERS`.
    """
    package, version = PEERS[name]
    environment = cache() / f"{name}-{version}"
    python = environment / "bin" / "python"
    done = environment / "installed"
    if not done.is_file():
        message_console().print(f"Installing {name} {version} into {environment} (once).")
        venv.create(environment, with_pip=True, clear=True)
        torch_version = torch.__version__.split("+")[0]
        packages = [f"torch=={torch_version}", f"{package}=={version}"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        done.touch()
    return python
