"""The rows a table starts with, whole or block by block.

A process that holds a shard of a table does not give the whole of it memory. The rows are those
that a whole table starts with: torch's generator of the CPU gives the same numbers drawn at once
and drawn block by block, if the blocks are multiples of 16 numbers (``normal_`` makes 16 at a
time); ``tests/nn/test_first_rows.py`` holds torch to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

#: Numbers that are drawn at once.
BLOCK = 2**24
_TOGETHER = 16


@dataclass(frozen=True)
class FirstRows:
    """Fills a table; TorchRec calls it as the table's ``init_fn``.

    Attributes:
        draw: fills a tensor with random numbers by a generator.
        seed: of a generator of the table's own; None for torch's.
        finish: what is done to a table of at most ``finished_rows`` rows when it is drawn.
        finished_rows: as said.
    """

    draw: Callable[[Tensor, torch.Generator | None], object]
    seed: int | None = None
    finish: Callable[[Tensor], None] | None = None
    finished_rows: int = 0

    @torch.no_grad()
    def __call__(self, weight: Tensor) -> None:
        """Fill a whole table, [rows, D]; one without memory is left."""
        if weight.is_meta:
            return
        generator = None
        if self.seed is not None:
            generator = torch.Generator(weight.device).manual_seed(self.seed)
        self.draw(weight, generator)
        if self.finish is not None and len(weight) <= self.finished_rows:
            self.finish(weight)

    def blocks(
        self, rows: int, width: int, generator: torch.Generator | None
    ) -> Iterator[tuple[int, Tensor]]:
        """What ``__call__`` fills a table with, on the CPU.

        Args:
            rows: of the table.
            width: D.
            generator: in the state it had; of no use where the table has a generator of its own.

        Yields:
            Where a block begins, and its rows, [n, D].
        """
        if self.finish is not None and rows <= self.finished_rows:
            whole = _on_host(rows, width)
            self(whole)
            yield 0, whole
            return
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed)
        for first, count in block_bounds(rows, width):
            block = _on_host(count, width)
            self.draw(block, generator)
            yield first, block


def block_bounds(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Where blocks of rows begin, and how many rows each has.

    Each but the last is a multiple of 16 rows; the last has at least 16, where the table has.
    """
    size = max(_TOGETHER, BLOCK // width // _TOGETHER * _TOGETHER)
    first = 0
    while first < rows:
        count = rows - first if rows - first < size + _TOGETHER else size
        yield first, count
        first += count


def collection_without_memory(
    tables: Sequence[EmbeddingBagConfig], is_weighted: bool
) -> EmbeddingBagCollection:
    """A collection whose weights have no memory, but know their first rows (``first_rows_of``).

    Torch's generator is left as a collection with memory would leave it: that draws every table
    twice, in ``EmbeddingBag`` and by its ``init_fn``.
    """
    collection = EmbeddingBagCollection(
        tables=list(tables), is_weighted=is_weighted, device=torch.device("meta")
    )
    for table in tables:
        for _, count in block_bounds(table.num_embeddings, table.embedding_dim):
            _on_host(count, table.embedding_dim).normal_()
    for table in tables:
        rows, width = table.num_embeddings, table.embedding_dim
        weight = collection.embedding_bags[table.name].weight
        state = torch.get_rng_state()
        weight.first_rows = _remembered(table.init_fn, rows, width, state)
        if table.init_fn.seed is None:
            for _ in table.init_fn.blocks(rows, width, None):
                pass
    return collection


def first_rows_of(weight: nn.Parameter) -> Iterator[tuple[int, Tensor]]:
    """Blocks of a table's rows: those it has, or those it starts with if it has no memory."""
    if not weight.is_meta:
        yield 0, weight.detach()
        return
    yield from weight.first_rows()  # type: ignore[attr-defined]


def _on_host(rows: int, width: int) -> Tensor:
    """Where the generators are, whatever device tensors are made on by default."""
    return torch.empty(rows, width, device="cpu")


def _remembered(
    first_rows: FirstRows, rows: int, width: int, state: Tensor
) -> Callable[[], Iterator[tuple[int, Tensor]]]:
    def blocks() -> Iterator[tuple[int, Tensor]]:
        generator = torch.Generator()
        generator.set_state(state)
        return first_rows.blocks(rows, width, generator)

    return blocks
