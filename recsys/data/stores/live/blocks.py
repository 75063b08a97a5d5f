"""Events of one timeline kind in memory, in a few sorted blocks that grow as events come.

Legend: n events.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.stores.timelines.layout import Block, Events, events_of, sorted_block
from recsys.data.stores.timelines.store import first_not_before, users_in


class SortedBlocks:
    """Blocks in the order their events came, each at least twice as large as the one after it.

    So N events lie in at most log2 N blocks, and an event is sorted about as often: a
    log-structured merge (O'Neil et al. 1996) in memory. A block never changes.

    Attributes:
        blocks: the first to come first, as a store's segments.
    """

    def __init__(self) -> None:
        self.blocks: tuple[Block, ...] = ()

    def add(self, events: Events) -> None:
        """Add events in the order they came: ``user``, ``timestamp`` and others, [n] each."""
        if not len(events["user"]):
            return
        parts, size, kept = [events], len(events["user"]), list(self.blocks)
        while kept and (last := _size(kept[-1])) < 2 * size:
            parts.insert(0, events_of(kept.pop()))
            size += last
        joined = {name: np.concatenate([part[name] for part in parts]) for name in events}
        self.blocks = (*kept, sorted_block(joined))

    def holds(self, events: Events) -> NDArray[np.bool_]:
        """[n] whether an event with the same values of all columns is there."""
        found = np.zeros(len(events["user"]), bool)
        everyone = np.arange(len(found))
        for block in self.blocks:
            place, asked = users_in(block, events["user"], everyone)
            start, end = block.offsets[place], block.offsets[place + 1]
            times, moment = block.columns["timestamp"], events["timestamp"][asked]
            first = first_not_before(times, start, end, moment)
            lengths = first_not_before(times, first, end, moment + 1) - first
            if not lengths.any():
                continue
            # all pairs of an event and one of its user at its moment
            event = np.repeat(asked, lengths)
            row = np.arange(len(event)) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
            same = np.ones(len(event), bool)
            for name, column in block.columns.items():
                same &= _same(column[row], events[name][event])
            found[event[same]] = True
        return found


def _size(block: Block) -> int:
    return int(block.offsets[-1])


def _same(one: NDArray, other: NDArray) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = one == other
    return equal | ((one != one) & (other != other))  # of NaN
