"""Blocks that had no gradient when their roots were due."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Overdue:
    """The roots of such a block are computed at its next step with a gradient.

    Each block is looked at alone, so the rule is the same over any number of ranks.

    Args:
        marks: [K, 1] of each stack, 1 where a block is overdue: what a checkpoint has of it.
    """

    def __init__(self, marks: Sequence[Tensor]) -> None:
        self._marks = marks
        self._rows: list[set[int]] = [set() for _ in marks]

    def read(self) -> None:
        """Follow the marks, which a checkpoint has changed."""
        self._rows = [set(mark.flatten().nonzero().flatten().tolist()) for mark in self._marks]

    def taken(self, due: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """Positions in ``rows`` of the blocks whose roots are computed now.

        Args:
            due: of each stack, the blocks whose turn it is.
            rows: of each stack, the blocks that have a gradient.
        """
        if not any(due) and not any(self._rows):
            return [[] for _ in rows]
        now = []
        for number, (turn, present) in enumerate(zip(due, rows, strict=True)):
            waiting = self._rows[number].union(turn)
            self._mark(number, waiting.difference(present))
            now.append([position for position, row in enumerate(present) if row in waiting])
        return now

    def _mark(self, number: int, rows: set[int]) -> None:
        if rows != self._rows[number]:
            self._rows[number] = rows
            self._marks[number].zero_()
            self._marks[number][sorted(rows)] = 1
