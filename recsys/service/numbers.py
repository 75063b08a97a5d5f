"""Numbers of requests: another one for each request of all processes, by time."""

from __future__ import annotations

import os
import time

#: ms since 2020, a part of the process, a count.
_EPOCH, _PROCESS_BITS, _COUNT_BITS = 1_577_836_800_000, 10, 11


class RequestNumbers:
    """Those of a process."""

    def __init__(self) -> None:
        self._asked = 0

    def next(self) -> int:
        """That of the next request."""
        self._asked += 1
        now = time.time_ns() // 1_000_000 - _EPOCH
        process = os.getpid() & (1 << _PROCESS_BITS) - 1
        count = self._asked & (1 << _COUNT_BITS) - 1
        return (now << _PROCESS_BITS | process) << _COUNT_BITS | count


def made_at(number: int) -> int:
    """When a request was made, ms."""
    return (number >> _PROCESS_BITS + _COUNT_BITS) + _EPOCH
