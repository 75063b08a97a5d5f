"""What the loader hands to a request-level model: timelines once per request, rows per item.

Legend: B requests, R rows (items over all requests), E events over all requests, K tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

#: A jagged timeline: ``lengths`` [B] int64 and one flat tensor [E] per column of
#: ``EXPLICIT_COLUMNS`` or ``IMPLICIT_COLUMNS``, events of a request side by side, oldest first.
#: A plain dictionary, because TorchScript passes it through an exported tower.
JaggedTimeline = dict[str, Tensor]

LENGTHS = "lengths"

#: Timeline columns and their dtypes, in memory, on disk and in the exported tower's input.
EXPLICIT_COLUMNS: dict[str, torch.dtype] = {
    "timestamp": torch.int64,  # ms
    "item": torch.int32,  # vocabulary indices, 0 = unknown
    "author": torch.int32,
    "topic": torch.int32,
    "media_type": torch.int8,  # position in the data set's list
    "surface": torch.int8,  # position in the data set's list
    "action_type": torch.int8,  # position in schema.ACTION_TYPES
}
IMPLICIT_COLUMNS: dict[str, torch.dtype] = {
    "timestamp": torch.int64,
    "item": torch.int32,
    "author": torch.int32,
    "topic": torch.int32,
    "media_type": torch.int8,
    "surface": torch.int8,
    "video_duration": torch.float32,  # s, NaN where unknown
    "dwell_time": torch.float32,  # s, NaN where unknown
}

#: Where each tensor of a packed batch lies: field, column of a timeline, dtype, shape, offset.
Layout = list[tuple[str, str | None, torch.dtype, tuple[int, ...], int]]

_ALIGNMENT = 64


@dataclass
class RequestBatch:
    """Requests with their timelines and rows.

    Attributes:
        request_time: [B] int64, ms.
        explicit: jagged explicit timeline, every event strictly before ``request_time - gap``.
        implicit: jagged implicit timeline, likewise.
        user_categorical: [B, F_u] int64, columns in the order of the manifest's features.
        user_dense: [B, D_u] float32, standardised.
        rows_per_request: [B] int64, sums to R.
        item_categorical: [R, F_i] int64: item features, then context features.
        item_dense: [R, D_i] float32: item features, then context features.
        labels: [R, K] float32, NaN where a label was not observed.
        row_id: [R] int64, position of the row in its split: pairs predictions of two runs.
    """

    request_time: Tensor
    explicit: JaggedTimeline
    implicit: JaggedTimeline
    user_categorical: Tensor
    user_dense: Tensor
    rows_per_request: Tensor
    item_categorical: Tensor
    item_dense: Tensor
    labels: Tensor
    row_id: Tensor

    @property
    def request_index(self) -> Tensor:
        """[R] int64: the request each row belongs to."""
        positions = torch.arange(len(self.rows_per_request), device=self.rows_per_request.device)
        return torch.repeat_interleave(positions, self.rows_per_request)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RequestBatch:
        """A copy on ``device``; Lightning calls it when it moves a batch."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RequestBatch:
        """A copy in page-locked memory; the loader calls it when ``pin_memory`` is set."""
        return self._map(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory until ``stream`` is done; TorchRec's pipelines call it."""

        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self._map(record)

    def __reduce__(self) -> tuple[Callable[..., RequestBatch], tuple[Tensor, Layout]]:
        """Pickle as one buffer: a loader's worker then shares one piece of memory per batch with
        the training process, not one per tensor.
        """
        named: list[tuple[str, str | None, Tensor]] = []
        for field in fields(self):
            value = getattr(self, field.name)
            columns = value if isinstance(value, dict) else {None: value}
            named.extend((field.name, column, tensor) for column, tensor in columns.items())
        layout: Layout = []
        size = 0
        for name, column, tensor in named:
            layout.append((name, column, tensor.dtype, tuple(tensor.shape), size))
            size += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
        buffer = torch.empty(size, dtype=torch.uint8, device=self.row_id.device)
        for (_, _, tensor), (_, _, dtype, shape, offset) in zip(named, layout, strict=True):
            _view(buffer, dtype, shape, offset).copy_(tensor)
        return _unpack, (buffer, layout)

    def _map(self, function: Callable[[Tensor], Tensor]) -> RequestBatch:
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                moved[field.name] = {name: function(tensor) for name, tensor in value.items()}
            else:
                moved[field.name] = function(value)
        return RequestBatch(**moved)


def _unpack(buffer: Tensor, layout: Layout) -> RequestBatch:
    """The batch whose tensors are views of ``buffer``."""
    values: dict[str, Any] = {}
    for name, column, dtype, shape, offset in layout:
        tensor = _view(buffer, dtype, shape, offset)
        if column is None:
            values[name] = tensor
        else:
            values.setdefault(name, {})[column] = tensor
    return RequestBatch(**values)


def _view(buffer: Tensor, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
    return buffer[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
