"""How a parameter is cut into blocks, each with a preconditioner of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class WeightBlock:
    """A piece of a parameter.

    Attributes:
        parameter: position of the parameter in its group.
        number: position of the block in its parameter, in row-major order.
        slices: where it lies in the parameter's merged shape.
        shape: of the block.
        merged: the parameter's merged shape.
        own_shape: the parameter's shape where the block is all of it, or the block's.
    """

    parameter: int
    number: int
    slices: tuple[slice, ...]
    shape: tuple[int, ...]
    merged: tuple[int, ...]
    own_shape: tuple[int, ...]

    def of(self, whole: Tensor) -> Tensor:
        """The block of its parameter, of shape ``own_shape``; a view where it can be one."""
        # most blocks are all of their parameter, which takes no time then
        return whole if self.shape == self.merged else whole.reshape(self.merged)[self.slices]


def merged_shape(shape: Sequence[int], max_dim: int) -> tuple[int, ...]:
    """A shape without dimensions of size 1, neighbours merged while they stay small.

    Dimensions are merged from the last backwards, as long as their product is at most ``max_dim``.

    Args:
        shape: of a parameter; ``()`` becomes ``(1,)``.
        max_dim: largest merged dimension. A single dimension may be larger.
    """
    squeezed = [size for size in shape if size != 1] or [1]
    merged = [squeezed.pop()]
    for size in reversed(squeezed):
        if size * merged[0] <= max_dim:
            merged[0] *= size
        else:
            merged.insert(0, size)
    return tuple(merged)


def blocks_of(parameter: int, shape: Sequence[int], max_dim: int) -> list[WeightBlock]:
    """The blocks of a parameter, in row-major order.

    Args:
        parameter: its position in its group.
        shape: of the parameter; no blocks where it has no element.
        max_dim: largest dimension of a block.
    """
    if math.prod(shape) == 0:
        return []
    merged = merged_shape(shape, max_dim)
    cuts = [
        [slice(start, min(start + max_dim, size)) for start in range(0, size, max_dim)]
        for size in merged
    ]
    blocks = []
    for number, slices in enumerate(itertools.product(*cuts)):
        size = tuple(one.stop - one.start for one in slices)
        own_shape = tuple(shape) if size == merged else size
        blocks.append(WeightBlock(parameter, number, slices, size, merged, own_shape))
    return blocks
