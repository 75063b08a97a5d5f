"""How many threads torch is to use, and how its memory is given out: said before torch is loaded.

OpenMP reads the environment once, when torch loads it. Threads that wait for a core that somebody
else uses spin at every operation: with more threads than free cores a step takes several times as
long, with fewer it takes hardly longer.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from pathlib import Path

THREADS = "OMP_NUM_THREADS"
#: The number that was chosen here, so that a process we start does not take it for the user's.
_CHOSEN = "RECSYS_CHOSEN_THREADS"
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
#: How long a waiting thread of GNU's OpenMP spins before it sleeps; by itself some milliseconds.
_SPINS = {"GOMP_SPINCOUNT": "10000"}
#: Any of these says how threads wait, and is the user's.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
#: Large tensors in pages of 2 MiB, where the system has them: rows of tables lie anywhere.
_HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_KEPT_BYTES, _HEAP_BYTES = 2**29, 2**25

#: What the environment held of all this when the process was started, for those that are to choose
#: for themselves.
_GIVEN = {name: os.environ.get(name) for name in (THREADS, _CHOSEN, *_SPINS, *_HUGE_PAGES)}


@dataclass(frozen=True)
class Threads:
    """Threads for one process, and what they follow from.

    Attributes:
        count: of threads.
        is_given: whether the user has said so; nothing else counts then.
        cores: this process may run on.
        quota: cores' worth of time that its control groups give it; None without a limit.
        load: processes that ran or waited for a core, on average over the last minute.
        machine: cores of the machine.
        processes: that share all this.
    """

    count: int
    is_given: bool
    cores: int
    quota: float | None
    load: float
    machine: int
    processes: int = 1

    def __str__(self) -> str:
        if self.is_given:
            return f"{self.count} by {THREADS}"
        quota = "no quota" if self.quota is None else f"a quota of {self.quota:g}"
        return (
            f"{self.count}: this process may run on {self.cores} of {self.machine} cores with "
            f"{quota}, the load is {self.load:.1f}; {THREADS} overrules it"
        )


def find_threads(processes: int = 1) -> Threads:
    """How many threads each of so many processes is to use, of the cores that are free.

    At least one; a load that leaves half a core leaves it to us.
    """
    cores, machine = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    quota, load = _quota(_OWN_CGROUPS, _CGROUPS), os.getloadavg()[0]
    found = (cores, quota, load, machine, processes)
    given = os.environ.get(THREADS)
    if given is not None and given != os.environ.get(_CHOSEN):
        first = given.split(",")[0].strip()
        return Threads(int(first) if first.isdecimal() else cores, True, *found)
    usable = min(cores, machine - load)
    if quota is not None:
        usable = min(usable, quota)
    return Threads(max(1, floor(usable + 0.5) // processes), False, *found)


def set_threads() -> None:
    """Have torch use the threads of :func:`find_threads`, in this process and those it starts.

    What the user, or the process that has started this one, has set in the environment stays.
    Torch must not be loaded yet.
    """
    if THREADS not in os.environ:
        share_threads(1)
    if not any(name in os.environ for name in _WAITING):
        os.environ.update(_SPINS)


def share_threads(processes: int) -> int:
    """Have each of so many processes that are about to be started use its share of the threads.

    Returns:
        How many these are.
    """
    threads = find_threads(processes)
    if not threads.is_given:
        os.environ[THREADS] = os.environ[_CHOSEN] = str(threads.count)
    return threads.count


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch, which is loaded, use one thread in the block, as workers of an engine do.

    Sums depend on the number of threads in their last bits.
    """
    torch = sys.modules["torch"]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def given_environment() -> dict[str, str]:
    """The environment without what was chosen here."""
    others = {name: value for name, value in os.environ.items() if name not in _GIVEN}
    return others | {name: value for name, value in _GIVEN.items() if value is not None}


def keep_memory() -> None:
    """Have torch's memory come in large pages, and what a step has freed kept for the next one.

    A step's tensors are of a size that malloc gives back to the system at once and asks for
    again, a page at a time. Where malloc is not GNU's it stays as it is.
    """
    for name, value in _HUGE_PAGES.items():
        os.environ.setdefault(name, value)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES) or mallopt(_MMAP_THRESHOLD, _HEAP_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def _quota(own: Path, root: Path) -> float | None:
    """The least of the limits of this process's control groups and those around them, in cores."""
    limits = []
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        group = base / path.lstrip("/")
        # inside a container the group may lie at the root of what is to be seen
        groups = [one for one in (group, *group.parents) if one.is_relative_to(base)]
        limits += [limit for one in groups if (limit := _limit(one)) is not None]
    return min(limits, default=None)


def _limit(group: Path) -> float | None:
    """Of one control group, of version 2 or 1."""
    words = [word for line in _lines(group / "cpu.max") for word in line.split()] or [
        *_lines(group / "cpu.cfs_quota_us"),
        *_lines(group / "cpu.cfs_period_us"),
    ]
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None  # "max" and -1 are no limit
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
