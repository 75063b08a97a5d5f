"""`python -m tests.cuda_without_gpu.memory`: what a step keeps for its backward at papers' sizes.

A formula for each encoder as it runs on a GPU, and beside it what autograd saves, by ``Kept``: on
tensors of the meta device, which have sizes and no memory, so that the papers' sizes cost nothing.
Attention is PyTorch's memory-efficient kernel, and dropout keeps a byte, as on a GPU.

Legend: B users, T steps of each, D width, H heads, N slices, L lookups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.data.slices.families import SliceConfig
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.encoders.funnel import FunnelSummarization, funnel_widths
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.sequence.sasrec import SASRecEncoder
from recsys.nn.sequence.transformer import TransformerSequenceEncoder
from recsys.optim.fused import FusedOptimizerConfig, fuse_tables
from recsys.systems.choice import compose_run
from tests.cuda_without_gpu.kept import Kept
from tests.nn.pooling.slice_samples import MEDIA_TYPES, ROWS, SURFACES, timelines

FLOAT, INDEX = 4, 8
#: Log-sums of a fused attention are kept for so many rows at a time.
_ROWS = 32
#: Seed and offset of a fused attention's random numbers.
_RANDOM = 2 * INDEX
_DROPOUT = 0.2


@dataclass(frozen=True)
class Sequences:
    """Sizes of a sequence encoder's step.

    Attributes:
        users: B.
        steps: T.
        width: D.
        layers: of the encoder.
        heads: H.
    """

    users: int
    steps: int
    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Slices:
    """Sizes of DV365's funnel.

    Attributes:
        users: B.
        slices: N.
        width: D.
        blocks: of the funnel, of one layer each.
        compression: vectors of the linear compression in parallel.
    """

    users: int
    slices: int
    width: int
    blocks: int = 3
    compression: int = 8


def sasrec_formula(of: Sequences) -> int:
    """Bytes.

    A layer keeps, of a step: its input, the normed one, queries, keys and values before and after
    they are padded, what was attended to, the sum, the normed one and the hidden layer.
    """
    tiles = _tiles_of_sasrec(of)
    layer = FLOAT * (8 * of.width + 4 * _aligned(of) + 4) + 2 * of.width
    last = FLOAT * (2 * of.width + 2)
    steps = of.users * of.steps * (2 * INDEX + of.layers * layer + last)
    return steps + of.layers * (_logsums(of) + tiles * _RANDOM)


def nxtpost_formula(of: Sequences) -> int:
    """Bytes.

    A layer keeps, of a step: its input, queries, keys and values before and after they are padded,
    what was attended to twice (by head, by step), two sums, the normed one and four times the width
    in the hidden layer.
    """
    layer = FLOAT * (12 * of.width + 4 * _aligned(of) + 4) + 2 * of.width
    steps = of.users * of.steps * (INDEX + of.layers * layer)
    return steps + of.layers * (_logsums(of) + _RANDOM)


def funnel_formula(of: Slices) -> int:
    """Bytes.

    A layer of n slices keeps, of each of D rows: its input, queries, keys and values, what was
    attended to, two sums, the normed one and the hidden layer of 2n before and after its function.
    """
    total = FLOAT * of.users * of.slices * of.width  # for the compression
    for width in funnel_widths(of.slices, of.blocks, 2):
        total += FLOAT * of.users * of.width * (12 * width + 4)
        total += FLOAT * of.users * 2 * _rounded(of.width, _ROWS) + _RANDOM
    return total


def pooling_formula(lookups: int, weighted: int) -> int:
    """Bytes that grow with the events: of a lookup its row, and of a weighted one its weight."""
    return 4 * lookups + 8 * weighted


def pooling_tracked(events: int, width: int, slices: SliceConfig) -> tuple[int, int, int]:
    """Of one user with so many events in either timeline: lookups, weighted ones, bytes kept.

    FBGEMM's tables are those for the CPU.
    """
    slice_set = SliceSet.from_config(slices, SURFACES, MEDIA_TYPES)
    pooling = CellPooling(slice_set, ROWS, width, counted=True)
    fuse_tables(pooling, FusedOptimizerConfig(learning_rate=0.1))
    with Kept(pooling) as kept:
        plain, weighted, slice_weights = pooling.lookups(*timelines([events], seed=0))
        pooling.pool(plain, weighted, slice_weights)
    assert plain is not None and weighted is not None
    return len(plain.values()), len(weighted.values()), kept.bytes


def sasrec_tracked(of: Sequences) -> int:
    """Bytes that the encoder keeps."""
    return _of_sequences(of, partial(SASRecEncoder, of.width, of.layers, of.heads, _DROPOUT))


def nxtpost_tracked(of: Sequences) -> int:
    """Bytes that the encoder keeps."""
    make = partial(TransformerSequenceEncoder, of.width, of.layers, of.heads, 4, _DROPOUT)
    return _of_sequences(of, make)


def funnel_tracked(of: Slices) -> int:
    """Bytes that the encoder keeps."""
    make = partial(FunnelSummarization, of.slices, of.compression, of.blocks, 1, 2, 2, 2, 0.0)
    pooled = (of.users, of.slices, of.width)
    return _tracked(make, pooled, lambda encoder, inputs: encoder(inputs))


def _of_sequences(of: Sequences, make: Callable[[], nn.Module]) -> int:
    lengths = torch.full((of.users,), of.steps)
    return _tracked(
        make,
        (of.users * of.steps, of.width),
        lambda encoder, tokens: encoder(tokens, lengths.to("meta"), None, lengths),
    )


def _tracked(
    make: Callable[[], nn.Module],
    size: tuple[int, ...],
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> int:
    with (
        torch.device("meta"),
        mock.patch.object(F, "scaled_dot_product_attention", _attention),
        mock.patch.object(F, "dropout", _dropout),
    ):
        encoder = make()
        inputs = torch.empty(size, requires_grad=True)
        with Kept(encoder) as kept:
            forward(encoder, inputs * 1.0)
    return kept.bytes


def _attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The kernel that a GPU takes for float32."""
    attended: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        queries, keys, values, attn_mask, True, dropout_p, is_causal, scale=scale
    )[0]
    return attended


def _dropout(inputs: Tensor, probability: float, *_: Any, **__: Any) -> Tensor:
    """A GPU's, which keeps a byte of each element."""
    if not probability:
        return inputs
    return torch.native_dropout(inputs, probability, True)[0]


def _aligned(of: Sequences) -> int:
    """Width of all heads, each with zeros up to a multiple of 8."""
    return of.heads * _rounded(of.width // of.heads, 8)


def _logsums(of: Sequences) -> int:
    return FLOAT * of.users * of.heads * _rounded(of.steps, _ROWS)


def _tiles_of_sasrec(of: Sequences) -> int:
    encoder = SASRecEncoder(of.heads, 1, of.heads, 0.0)
    users = max(1, encoder.max_scores_elsewhere // (of.steps * of.steps))
    return -(-of.users // users)


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


#: Name, formula, tracker, sizes of the paper or of conf/.
PAPERS: tuple[tuple[str, Callable[[Any], int], Callable[[Any], int], Any], ...] = (
    ("SASRec, 256 x 1,000 steps, D = 50", sasrec_formula, sasrec_tracked,
     Sequences(256, 1000, 50, 2, 1)),
    ("NxtPost, 1,024 x 100 steps and [CLS], D = 64", nxtpost_formula, nxtpost_tracked,
     Sequences(1024, 101, 64, 2, 2)),
    ("DV365's funnel, 1 user, 200 slices to 58, D = 256", funnel_formula, funnel_tracked,
     Slices(1, 200, 256)),
    ("DV365's funnel, 1,024 users", funnel_formula, funnel_tracked, Slices(1024, 200, 256)),
)  # fmt: skip


def main() -> None:
    """Print the table."""
    print("| step | by formula | by the tracker |\n|---|---:|---:|")
    for name, by_formula, tracked, sizes in PAPERS:
        print(f"| {name} | {_readable(by_formula(sizes))} | {_readable(tracked(sizes))} |")
    full = compose_run(["system=dv365", "slices=full", "data=log", "data.path=-", "data.out=-"])
    lookups, weighted, kept = pooling_tracked(35_000, 256, full.slices)
    formula = _readable(pooling_formula(lookups, weighted))
    print(
        f"| DV365's pooling, 1 user, 70,000 events: {lookups:,} lookups and {weighted:,} weighted "
        f"ones, D = 256 | {formula} | {_readable(kept)} |"
    )


def _readable(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


if __name__ == "__main__":
    main()
