"""The matrix products of a computation, to be computed again without the rest: its limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


class Products(TorchDispatchMode):
    """Keeps the matrix products that are computed, with their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Sequence[Any], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and keep a product."""
        if func.name() in _PRODUCTS:
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def again(self) -> None:
        """Compute the products, and nothing else."""
        for function, args, kwargs in self.calls:
            function(*args, **kwargs)

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * sum(
            int(np.prod(args[-2].shape)) * args[-1].shape[-1] for _, args, _ in self.calls
        )


def timed(task: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor, and of the wall clock."""
    wall, cpu = time.perf_counter(), time.thread_time()
    task()
    return time.thread_time() - cpu, time.perf_counter() - wall
