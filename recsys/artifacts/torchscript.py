"""Compiling user towers by TorchScript, and opening them again."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from recsys.artifacts.inspection import check_tower_file
from recsys.artifacts.manifest import Manifest
from recsys.core.errors import ArtifactError


def script_tower(tower: nn.Module) -> torch.jit.ScriptModule:
    """Compile a tower, quantised or float; its ``forward`` stays what it was."""
    tower.eval().requires_grad_(False)
    with warnings.catch_warnings():
        # TorchScript is deprecated in torch 2.13, and what the project exports all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted: torch.jit.ScriptModule = torch.jit.script(tower)
    return scripted


def save_tower(tower: torch.jit.ScriptModule, path: Path) -> None:
    """Write a compiled tower.

    By way of memory: where the disk is full, torch ends the process when it writes a file itself.

    Raises:
        ArtifactError: it has an operator that ``load_tower`` would refuse.
    """
    content = io.BytesIO()
    torch.jit.save(tower, content)
    path.write_bytes(content.getbuffer())
    check_tower_file(path)


def load_tower(path: Path, manifest: Manifest) -> torch.jit.ScriptModule:
    """Open a compiled tower on the CPU, in evaluation mode, after a look at its code.

    Raises:
        ArtifactError: it is none that `recsys export` writes, or this version of torch cannot load
            it.
    """
    check_tower_file(path)
    try:
        tower: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ArtifactError(
            f"{path} cannot be loaded with torch {torch.__version__} (exported with "
            f"{manifest.environment['packages'].get('torch')}): {str(error).splitlines()[0]}; "
            "install the same version or export the run again."
        ) from error
    return tower.eval()
