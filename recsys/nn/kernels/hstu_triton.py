"""HSTU's attention over jagged sequences by Triton kernels, with its biases, and its gradients.

A program owns a block of a user's steps and walks over the blocks that those see, or that see
them. Scores live in registers, a tile at a time, and the backward computes them anew: what is kept
is of the size of queries, keys and values. Programs are laid out without a look at the lengths:
there are as many as any lengths of that sum could need, and the surplus ones end at once; so the
host waits for nothing. Nobody writes where another program writes, so results are deterministic.

Legend: B users, E steps of all users (jagged), D width of all heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from recsys.nn.kernels.hstu_kernels import (
    biases_kernel,
    forward_kernel,
    keys_kernel,
    queries_kernel,
)
from recsys.nn.kernels.products import float32_precision

#: Widths of a head beyond this would not fit.
WIDEST_HEAD = 128

#: Programs that the gradients of the biases are spread over, about.
_BIAS_PROGRAMS = 1024


@dataclass(frozen=True)
class Sequences:
    """Where the users' steps lie, and how programs are laid over them.

    Attributes:
        starts: [B + 1] int32.
        timestamps: [E] int64, ms, or None.
        max_length: n, no sequence is longer.
        bucket_width: of a time bucket: ⌊ln(max(1, seconds)) / bucket_width⌋.
        block: steps of a block.
        block_user: [programs] int32, whose block a program has; B for nobody's.
        first_block: [B] int32, the program of each user's first block.
    """

    starts: Tensor
    timestamps: Tensor | None
    max_length: int
    bucket_width: float
    block: int
    block_user: Tensor
    first_block: Tensor

    @staticmethod
    def block_size(head_width: int, dtype: torch.dtype) -> int:
        """Steps of a block, such that tiles fit in registers and shared memory."""
        bytes_per_row = _padded(head_width) * dtype.itemsize
        if bytes_per_row <= 128 and dtype.itemsize == 2:
            return 64
        # at full precision each number is two of TF32
        exact = dtype == torch.float32 and float32_precision() == "tf32x3"
        return 16 if exact and bytes_per_row > 256 else 32

    @classmethod
    def of(
        cls,
        lengths: Tensor,
        timestamps: Tensor | None,
        max_length: int,
        bucket_width: float,
        num_steps: int,
        block: int,
    ) -> Sequences:
        """Of users of ``lengths`` [B], which sum to ``num_steps``."""
        ends = torch.cumsum(lengths, 0)
        blocks_end = torch.cumsum((lengths + block - 1) // block, 0)
        programs = num_steps // block + min(len(lengths), num_steps)
        program = torch.arange(programs, device=lengths.device)
        return cls(
            torch.nn.functional.pad(ends, (1, 0)).to(torch.int32),
            timestamps,
            max_length,
            bucket_width,
            block,
            torch.searchsorted(blocks_end, program, right=True, out_int32=True),
            (blocks_end - (lengths + block - 1) // block).to(torch.int32),
        )


def silu_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    by_position: Tensor,
    by_time: Tensor | None,
    sequences: Sequences,
    heads: int,
) -> Tensor:
    """``SiLU(QKᵀ + rab) V / n`` of every user and head, over each step and those before it.

    The score of step i for step j has ``by_position[i - j]`` added, and with times
    ``by_time[bucket of their distance in time]``. Sums are in float32.

    Args:
        queries: [E, D] float16, bfloat16 or float32, heads side by side; D / heads at most
            ``WIDEST_HEAD``. Rows may lie apart, their numbers not.
        keys: [E, D] of the same type, and as far apart.
        values: [E, D] like the keys.
        by_position: [n] float32.
        by_time: [buckets] float32, where there are times.
        sequences: of the E steps.
        heads: attention heads.

    Returns:
        [E, D], differentiable (once) in the queries, keys, values and both biases.
    """
    return _SiLUAttention.apply(queries, keys, values, by_position, by_time, sequences, heads)


class _SiLUAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        by_position: Tensor,
        by_time: Tensor | None,
        sequences: Sequences,
        heads: int,
    ) -> Tensor:
        inputs = [queries, keys, values]
        if len({part.stride() for part in inputs}) > 1 or queries.stride(1) != 1:
            inputs = [part.contiguous() for part in inputs]
        launch = Launch(sequences, heads, inputs[0].shape[1], inputs[0].stride(0))
        tables = by_position.contiguous(), None if by_time is None else by_time.contiguous()
        attended = inputs[0].new_empty(inputs[0].shape)
        if launch.programs:
            forward_kernel[launch.grid](
                *launch.arguments(*inputs, *tables),
                attended,
                **launch.constants(inputs[0], tables[1]),
            )
        ctx.launch = launch
        ctx.save_for_backward(*inputs, *tables)
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        launch, saved = ctx.launch, ctx.saved_tensors
        outer = outer.to(saved[0].dtype).contiguous()
        arguments = launch.arguments(*saved)
        constants = launch.constants(saved[0], saved[4])
        of_queries, of_keys, of_values = (torch.empty_like(outer) for _ in range(3))
        if launch.programs:
            queries_kernel[launch.grid](*arguments, outer, of_queries, **constants)
            keys_kernel[launch.grid](*arguments, outer, of_keys, of_values, **constants)
        of_tables: tuple[Tensor | None, Tensor | None] = (None, None)
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            of_tables = _gradients_of_biases(launch, saved, outer)
        return of_queries, of_keys, of_values, *of_tables, None, None


@dataclass(frozen=True)
class Launch:
    """What the kernels of one attention have in common.

    Attributes:
        sequences: of the steps.
        heads: attention heads.
        width: D.
        stride: numbers from a step's queries to those of the next.
    """

    sequences: Sequences
    heads: int
    width: int
    stride: int

    @property
    def programs(self) -> int:
        """One per block of a user's steps, and some that have none."""
        return len(self.sequences.block_user)

    @property
    def grid(self) -> tuple[int, int]:
        """Programs by block and head."""
        return self.programs, self.heads

    def arguments(self, *parts: Tensor | None) -> tuple[Any, ...]:
        """What the kernels by block take first; parts are inputs and tables."""
        sequences = self.sequences
        return (
            *self._inputs(*parts),
            sequences.starts,
            sequences.block_user,
            sequences.first_block,
            *self._numbers(),
        )

    def arguments_of_biases(self, *parts: Tensor | None) -> tuple[Any, ...]:
        """What the kernel by distance takes first."""
        return (*self._inputs(*parts), self.sequences.starts, *self._numbers())

    def _inputs(self, *parts: Tensor | None) -> tuple[Any, ...]:
        queries, keys, values, by_position, by_time = parts
        nothing = self.sequences.starts  # not read without times
        times = self.sequences.timestamps
        return (
            queries,
            keys,
            values,
            nothing if times is None else times,
            by_position,
            nothing if by_time is None else by_time,
        )

    def _numbers(self) -> tuple[Any, ...]:
        users = len(self.sequences.starts) - 1
        return users, self.stride, self.width, 1 / self.sequences.max_length

    def constants(self, queries: Tensor, by_time: Tensor | None) -> dict[str, Any]:
        """Compile-time arguments of the kernels by block."""
        head_width = self.width // self.heads
        return {
            "WIDTH": head_width,
            "PADDED_WIDTH": _padded(head_width),
            "BLOCK": self.sequences.block,
            "NUM_BUCKETS": 0 if by_time is None else len(by_time),
            "BUCKET_WIDTH": self.sequences.bucket_width,
            "PRECISION": float32_precision(),
            "num_warps": 8 if self.sequences.block == 64 else 4,
            "num_stages": 2,
        }


def _gradients_of_biases(
    launch: Launch, saved: tuple[Tensor, ...], outer: Tensor
) -> tuple[Tensor, Tensor | None]:
    """By position [n] and by time [buckets], added up over programs that each had some users."""
    sequences, by_time = launch.sequences, saved[4]
    constants = launch.constants(saved[0], by_time)
    bins = triton.next_power_of_2(max(1, constants["NUM_BUCKETS"]))
    blocks = triton.cdiv(sequences.max_length, sequences.block)
    chunks = max(1, min(len(sequences.starts) - 1, _BIAS_PROGRAMS // blocks))
    of_distances = outer.new_empty(chunks, blocks, 2, sequences.block, dtype=torch.float32)
    of_buckets = outer.new_empty(chunks, blocks, bins, dtype=torch.float32)
    biases_kernel[(chunks, blocks)](
        *launch.arguments_of_biases(*saved),
        outer,
        of_distances,
        of_buckets,
        HEADS=launch.heads,
        BINS=bins,
        **constants,
    )
    below, above = of_distances.sum(0).unbind(1)  # [blocks, block] each
    # what lies above the diagonal of a tile belongs to the distances of the block before
    by_distance = below + torch.nn.functional.pad(above[1:], (0, 0, 0, 1))
    of_position = by_distance.flatten()[: sequences.max_length]
    return of_position, None if by_time is None else of_buckets.sum((0, 1))[: len(by_time)]


def _padded(head_width: int) -> int:
    """A power of 2; the narrowest that a tensor core takes is 16."""
    return max(16, triton.next_power_of_2(head_width))
