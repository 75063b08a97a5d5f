"""What every batch can do: move to a device, and cross to another process as one buffer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

#: Where each tensor of a packed batch lies: field, column of a dictionary, dtype, shape, offset.
Layout = list[tuple[str, str | None, torch.dtype, tuple[int, ...], int]]

_ALIGNMENT = 64

#: Metadata of a field that stays on the host: sizes that must be known there, for which a device
#: would have to be waited for.
ON_HOST = {"on_host": True}


class TensorBatch:
    """Base of dataclasses whose fields are tensors or dictionaries of tensors.

    A field may be None where its tensors are left out, and stay where it is (``ON_HOST``).
    """

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy on ``device``; Lightning calls it when it moves a batch.

        Nobody waits until what lies in page-locked memory is copied.
        """
        return self._map(
            lambda tensor: tensor.to(device, non_blocking=non_blocking or tensor.is_pinned())
        )

    def pin_memory(self) -> Self:
        """A copy in page-locked memory; the loader calls it when ``pin_memory`` is set."""
        return self._map(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory until ``stream``, which did not make the tensors, is done with them."""

        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self._map(record)

    def __reduce__(self) -> tuple[Callable[..., TensorBatch], tuple[type, Tensor, Layout]]:
        """Pickle as one buffer: a loader's worker then shares one piece of memory per batch with
        the training process, not one per tensor.
        """
        named: list[tuple[str, str | None, Tensor]] = []
        for field in fields(self):  # type: ignore[arg-type]  # the classes below are dataclasses
            value = getattr(self, field.name)
            if value is None:
                continue
            columns = value if isinstance(value, dict) else {None: value}
            named.extend((field.name, column, tensor) for column, tensor in columns.items())
        layout: Layout = []
        size = 0
        for name, column, tensor in named:
            layout.append((name, column, tensor.dtype, tuple(tensor.shape), size))
            size += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
        buffer = torch.empty(size, dtype=torch.uint8, device=named[0][2].device)
        for (_, _, tensor), (_, _, dtype, shape, offset) in zip(named, layout, strict=True):
            _view(buffer, dtype, shape, offset).copy_(tensor)
        return _unpack, (type(self), buffer, layout)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        moved: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is None or field.metadata.get("on_host"):
                moved[field.name] = value
            elif isinstance(value, dict):
                moved[field.name] = {name: function(tensor) for name, tensor in value.items()}
            else:
                moved[field.name] = function(value)
        return type(self)(**moved)


BatchType = TypeVar("BatchType", bound=TensorBatch)


def _unpack(batch_type: type[BatchType], buffer: Tensor, layout: Layout) -> BatchType:
    """The batch whose tensors are views of ``buffer``."""
    values: dict[str, Any] = {}
    for name, column, dtype, shape, offset in layout:
        tensor = _view(buffer, dtype, shape, offset)
        if column is None:
            values[name] = tensor
        else:
            values.setdefault(name, {})[column] = tensor
    return batch_type(**values)


def _view(buffer: Tensor, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
    return buffer[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
