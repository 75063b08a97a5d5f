"""Triton kernels; each stands beside a plain PyTorch function that computes the same."""

from __future__ import annotations

import functools
import importlib.util


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed: torch for CUDA brings it on Linux."""
    return importlib.util.find_spec("triton") is not None
