"""What a forward keeps in memory for its backward."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn


class Kept:
    """Counts the bytes of all that autograd saves within the block, but for the module's own.

    What shares memory counts once, with all of that memory. What a function of ours hangs on its
    context in another way is not seen.

    Args:
        module: its weights and buffers lie in memory anyhow.

    Attributes:
        bytes: kept so far.
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        held = [] if module is None else [*module.parameters(), *module.buffers()]
        self.bytes = 0
        # storages are held, for the address of one that is freed may be given out again
        self._seen = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in held}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._note, lambda saved: saved)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._hooks.__exit__()
        self._seen.clear()

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.layout == torch.strided and storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage
            self.bytes += storage.nbytes()
        return tensor
