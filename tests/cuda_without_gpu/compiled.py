"""Triton kernels compiled ahead of time for GPUs that are not here, by the launch that needs them.

Everything of a launch is done but the launch: Triton binds the arguments and makes constants of
what it finds in them, for a driver that only says which GPU it has.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import driver
from triton.runtime.jit import JITFunction


@dataclass(frozen=True)
class Compiled:
    """A kernel for one GPU.

    Attributes:
        name: of the kernel.
        shared: bytes of shared memory of a block.
        registers: of a thread.
        spilled: bytes that a thread stores because it has no more registers.
    """

    name: str
    shared: int
    registers: int
    spilled: int


class _Driver:
    """Of a machine with one GPU, which nobody has."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # what Triton keeps compiled kernels by

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextmanager
def compiling_for(capability: int, folder: Path) -> Iterator[list[Compiled]]:
    """Have launches within the block compiled for ``sm_<capability>``, and not launched.

    Args:
        capability: 80 for A100, 90 for H100 and H200.
        folder: for files on the way.
    """
    compiled: list[Compiled] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **constants: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **constants)
        spilled, registers = _resources(kernel.asm["ptx"], capability, folder)
        compiled.append(Compiled(self.__name__, kernel.metadata.shared, registers, spilled))
        return kernel

    with (
        mock.patch.object(driver, "_active", _Driver(capability)),
        mock.patch.object(JITFunction, "run", compile_only),
    ):
        yield compiled


def _resources(ptx: str, capability: int, folder: Path) -> tuple[int, int]:
    """Bytes of spills and registers, by NVIDIA's assembler."""
    source = folder / "kernel.ptx"
    source.write_text(ptx)
    architecture = f"sm_{capability}" + ("a" if capability >= 90 else "")
    said = subprocess.run(
        [get_ptxas(capability).path, "-v", f"--gpu-name={architecture}", source, "-o", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    [spilled] = re.findall(r"(\d+) bytes spill stores", said)
    [registers] = re.findall(r"Used (\d+) registers", said)
    return int(spilled), int(registers)
