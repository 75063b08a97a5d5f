"""Copies of a training's tensors, for a checkpoint that is written while the training goes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions


class Copies:
    """Memory of the host that training does not change.

    What comes from a GPU lies in page-locked memory, to which all tensors are copied one behind the
    other, the host waiting once. It is kept for the next checkpoint, since to lock memory takes
    longer than to fill it: a process then holds what it saves once more on the host, until
    ``close``. A training on the CPU has new memory for each checkpoint, and none in between.
    """

    def __init__(self) -> None:
        self._stager: DefaultStager | None = None

    def of(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same tensors on the host; those of the call before are overwritten."""
        if not any(tensor.is_cuda for tensor in tensors):
            return [torch.empty_like(tensor).copy_(tensor.detach()) for tensor in tensors]
        if self._stager is None:
            options = StagingOptions(use_shared_memory=False, use_async_staging=False)
            self._stager = DefaultStager(options)
        staged = self._stager.stage({"tensors": [tensor.detach() for tensor in tensors]})
        copies: list[Tensor] = staged["tensors"]  # type: ignore[index]
        return copies

    def close(self) -> None:
        """Give the memory back."""
        if self._stager is not None:
            self._stager.close()
            self._stager = None
