"""A command and all processes it starts, watched: wall seconds, processor seconds, peak memory."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY_SECONDS = 0.25
_MIB = 2**20


@dataclass(frozen=True)
class Watched:
    """What a command took.

    Attributes:
        seconds: by the clock.
        processor_seconds: of all its processes, as last seen of each.
        peak_mib: most memory that its processes held at a moment, what they share counted once.
    """

    seconds: float
    processor_seconds: float
    peak_mib: float


def watch(command: list[str], log: Path) -> Watched:
    """Run a command and look at its processes four times a second.

    Args:
        command: what is run.
        log: file for what it prints.

    Raises:
        AssertionError: it failed.
    """
    used: dict[tuple[int, float], float] = {}
    peak = 0.0
    start = time.perf_counter()
    with log.open("w") as printed:
        process = psutil.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        while process.poll() is None:
            held = 0.0
            with suppress(psutil.NoSuchProcess):
                for one in (process, *process.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        times = one.cpu_times()
                        used[one.pid, one.create_time()] = times.user + times.system
                        held += one.memory_full_info().pss
            peak = max(peak, held)
            time.sleep(_EVERY_SECONDS)
        seconds = time.perf_counter() - start
    if process.returncode:
        last = log.read_text().splitlines()[-5:]
        raise AssertionError(f"{' '.join(command)} failed: {' '.join(last)}")
    return Watched(seconds, sum(used.values()), peak / _MIB)


def python(*words: str) -> list[str]:
    """A command of this Python."""
    return [sys.executable, *words]
