"""The rows a table starts with: any part of them, without drawing the others.

Every number is a function of the run's seed, its table, its row and its column: Philox, a generator
that counts (Salmon et al. 2011; numpy's), is put to the place of a part. So the rows do not depend
on how a table is cut, nor on how many rows it has, and who holds a part draws that part alone. All
is drawn on the host, some thousand numbers at a time, and copied to where the part lies: a GPU
starts with the same rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Numbers = NDArray[np.float32]

#: Rows that are drawn at once: the numbers at hand fit into a core's cache.
_UNIT = 2048
#: Columns drawn at once, half of them from each of two streams.
_COLUMNS = 32
#: Numbers that Philox makes of one value of its counter; units begin at multiples of so many rows.
_PER_COUNT = 8


@dataclass(frozen=True)
class Normal:
    """Rows of mean 0, by Box and Muller's transform: a number of each stream makes two.

    Attributes:
        deviation: the standard deviation; no number is more than 5.8 of them from 0.
    """

    deviation: float

    def of(self, first: Numbers, second: Numbers) -> tuple[Numbers, Numbers]:
        """Turn numbers in [0, 1), both [n, h], into those of the two halves."""
        np.subtract(1, first, out=first)
        np.log(first, out=first)
        first *= np.float32(-2 * self.deviation**2)
        np.sqrt(first, out=first)
        second *= np.float32(2 * math.pi)
        sine = np.sin(second)
        np.cos(second, out=second)
        second *= first
        first *= sine
        return second, first


@dataclass(frozen=True)
class Uniform:
    """Rows between two bounds.

    Attributes:
        bound: the upper one; the lower is -bound.
    """

    bound: float

    def of(self, first: Numbers, second: Numbers) -> tuple[Numbers, Numbers]:
        """Turn numbers in [0, 1), both [n, h], into those of the two halves."""
        for numbers in (first, second):
            numbers *= np.float32(2 * self.bound)
            numbers -= np.float32(self.bound)
        return first, second


@dataclass(frozen=True)
class FirstRows:
    """Fills a table or a part of it; TorchRec calls it as the table's ``init_fn``.

    Attributes:
        name: of the table; tables of one name start with the same rows.
        spread: how the numbers are spread.
        seed: of the run.
        finish: what is done to a table of at most ``finished_rows`` rows when it is drawn.
        finished_rows: as said.
    """

    name: str
    spread: Normal | Uniform
    seed: int
    finish: Callable[[Tensor], None] | None = None
    finished_rows: int = 0

    def __call__(self, weight: Tensor) -> None:
        """Fill a whole table, [R, D]; one without memory is left."""
        start_part(weight, (0, 0), weight.shape, self)

    @torch.no_grad()
    def fill(self, part: Tensor, begin: Sequence[int], size: Sequence[int]) -> None:
        """Fill a part of a table, [r, d].

        Args:
            part: on any device.
            begin: its first row and column in the table.
            size: R and D of the table.
        """
        part, (row, column) = part.detach(), begin
        if self.finish is not None and size[0] <= self.finished_rows:
            whole = torch.empty(*size, device="cpu")
            self._draw(whole, 0, 0, size[1])
            self.finish(whole)
            part.copy_(whole[row : row + part.shape[0], column : column + part.shape[1]])
        else:
            self._draw(part, row, column, size[1])

    def _draw(self, part: Tensor, row: int, column: int, width: int) -> None:
        """Fill a part by unfinished numbers, units of rows on as many threads as torch has."""
        first = row - row % _PER_COUNT
        units = range(first, row + part.shape[0], _UNIT)
        threads = min(torch.get_num_threads(), len(units))

        def of_thread(number: int) -> None:
            source = _Source(self, width)
            for begin in units[number::threads]:
                low, high = max(begin, row), min(begin + _UNIT, row + part.shape[0])
                source.fill(part[low - row : high - row], begin, low, column)

        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(of_thread, range(threads)))
        elif threads == 1:
            of_thread(0)


class _Source:
    """The numbers of a table, drawn by one thread.

    The counter's words, the lowest first: its row's place, 0 or 1 for the stream, the number of the
    columns' group, 0.
    """

    def __init__(self, rows: FirstRows, width: int) -> None:
        key = hashlib.blake2b(rows.name.encode(), digest_size=8).digest()
        words = np.array([rows.seed % 2**64, int.from_bytes(key, "little")], np.uint64)
        self._bits = np.random.Philox(key=words)
        self._state: Any = self._bits.state
        self._numbers = np.random.Generator(self._bits)
        self._spread = rows.spread
        self._half = min(_COLUMNS, width + width % 2) // 2
        self._drawn = np.empty((2, _UNIT, self._half), np.float32)

    def fill(self, part: Tensor, begin: int, row: int, column: int) -> None:
        """Fill rows from ``row`` on, of the unit that begins at ``begin``, from ``column`` on."""
        here = part.device.type == "cpu" and part.dtype == torch.float32
        target = part.numpy() if here else np.empty(part.shape, np.float32)
        count = row - begin + len(target)
        last = column + target.shape[1]
        for group in range(column // (2 * self._half), -(-last // (2 * self._half))):
            halves = self._spread.of(*(self._uniform(begin, count, group, half) for half in (0, 1)))
            for half, drawn in enumerate(halves):
                at = (2 * group + half) * self._half
                low, high = max(at, column), min(at + self._half, last)
                if low < high:
                    numbers = drawn[row - begin :, low - at : high - at]
                    target[:, low - column : high - column] = numbers
        if not here:
            part.copy_(torch.from_numpy(target))

    def _uniform(self, begin: int, count: int, group: int, half: int) -> Numbers:
        """[count, h] numbers in [0, 1) of one stream."""
        words = (begin * self._half // _PER_COUNT, half, group, 0)
        self._state["state"]["counter"][:] = words
        self._bits.state = self._state
        drawn: Numbers = self._drawn[half, :count]
        self._numbers.random(out=drawn, dtype=np.float32)
        return drawn


_LATER: ContextVar[bool] = ContextVar("rows come later", default=False)


@contextmanager
def rows_come_later() -> Iterator[None]:
    """Draw no first rows within the block, since a checkpoint has them: NaN until they come."""
    token = _LATER.set(True)
    try:
        yield
    finally:
        _LATER.reset(token)


def rows_awaited() -> bool:
    """Whether the first rows of new tables come later."""
    return _LATER.get()


@torch.no_grad()
def start_part(
    part: Tensor, begin: Sequence[int], size: Sequence[int], first_rows: FirstRows
) -> None:
    """Give a part of a new table, [r, d], its first rows, or none yet where they come later.

    Args:
        part: of the table; one without memory is left.
        begin: its first row and column in the table.
        size: R and D of the table.
        first_rows: of the table.
    """
    if part.is_meta:
        return
    if rows_awaited():
        part.fill_(math.nan)
    else:
        first_rows.fill(part, begin, size)


class Undrawn(TorchFunctionMode):
    """Libraries fill no table within the block: its rows are ours to give, and drawing costs."""

    _DRAWS = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What torch does, unless it draws."""
        given = kwargs or {}
        if func in self._DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
