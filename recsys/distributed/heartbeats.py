"""A rank that hangs is found and named, and ranks that are slow are told.

Every rank has a thread that writes, to the store by which the ranks have met, how far its training
is, since when, and what it is doing; and that reads what the others have written. Where no rank
has come further for too long, one that is behind the others, or that waits for nobody while they
wait, is what they wait for. The first thread to see it writes the verdict; all end with it.
"""

from __future__ import annotations

import faulthandler
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch.distributed as dist

from recsys.core.durable import replace_file
from recsys.core.errors import HangError
from recsys.distributed.processes import end_at_once, rank_log
from recsys.distributed.whereabouts import flight_record, open_collective, whereabouts

#: In front of a rank's number: the file of its last collectives, for
#: ``python -m torch.distributed.flight_recorder.fr_trace -p collectives_ <folder>``.
COLLECTIVES = "collectives_"

_PREFIX = "recsys/heartbeats"
_VERDICT = "verdict"
_TOLD = "told"
#: Seconds between two looks at what this rank is doing.
_LOOK = 0.1
#: Seconds between two readings of what the others have written, unless the bound is short.
_READ = 2.0
#: Without a new word for so many readings a rank's process is taken to stand still.
_MISSED = 4
#: A rank is slow whose own time is so many times the median's.
SLOW = 1.5


@dataclass(frozen=True)
class Beat:
    """What a rank has written last.

    Attributes:
        host: its machine.
        count: how often it has come further since the training began.
        phase: what part of the training it is in, with its step.
        seconds: since it has come there.
        place: the function it is in.
        exchange: the collective it is in; None where it waits for nobody.
        collective: the last one that it has begun and not ended, by torch's flight recorder.
        log: the file it writes to; empty where its launcher knows.
        own_seconds: time of the steps so far that it did not wait for others.
        steps: that the training has done so far.
        silent: since when nothing new was heard of it, seconds.
    """

    host: str
    count: int
    phase: str
    seconds: float
    place: str
    exchange: str | None
    collective: str | None
    log: str
    own_seconds: float
    steps: int
    silent: float = 0.0


def hanging(beats: Sequence[Beat], bound: float, patience: float) -> str | None:
    """The sentence about the ranks that the others wait for, where no rank comes further.

    Args:
        beats: of the ranks, in their order.
        bound: seconds that are too long.
        patience: seconds of silence after which a process is taken to stand still.
    """
    if min(beat.seconds + beat.silent for beat in beats) < bound:
        return None
    ranks = range(len(beats))
    silent = [rank for rank in ranks if beats[rank].silent >= patience]
    last = min(beat.count for beat in beats)
    behind = [rank for rank in ranks if beats[rank].count == last]
    alone = [rank for rank in behind if beats[rank].exchange is None]
    guilty = (silent if len(silent) < len(beats) else []) or alone or behind
    others = [rank for rank in ranks if rank not in guilty]
    told = " ".join(_of_rank(rank, beats[rank], rank in silent) for rank in guilty)
    waiting = "; ".join(
        f"rank {rank} in {beats[rank].phase}, {_awaited(beats[rank]) or beats[rank].place}"
        for rank in others[:8]
    )
    rest = f" The others wait: {waiting}{'; …' if len(others) > 8 else ''}." if others else ""
    mend = f" (The bound is strategy.hang_minutes={bound / 60:g}.)"
    return f"{told}{rest}{mend}"


def _of_rank(rank: int, beat: Beat, silent: bool) -> str:
    if silent:
        return (
            f"Rank {rank} ({beat.host}) hangs: it was in {beat.phase} when it was last heard of, "
            f"{beat.silent:.0f} s ago; its process stands still or its node is gone."
        )
    waits = f", waiting in {_awaited(beat)}" if beat.exchange else ""
    return (
        f"Rank {rank} ({beat.host}) hangs: for {beat.seconds:.0f} s it has been in {beat.phase}, "
        f"in {beat.place}{waits}; its stack is in {beat.log or 'its log'}."
    )


def _awaited(beat: Beat) -> str | None:
    """The collective a rank waits in, as Python calls it and as the flight recorder does."""
    named = [name for name in (beat.exchange, beat.collective) if name]
    return " — ".join(named) if beat.exchange or beat.collective else None


@dataclass(frozen=True)
class StepTimes:
    """How long a step takes the ranks, without what they wait for others; seconds, by rank."""

    step: int
    own: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the ranks; of two the faster one."""
        return statistics.median_low(self.own)

    @property
    def slowest(self) -> int:
        """The rank that takes longest."""
        return self.own.index(max(self.own))

    def remark(self, hosts: Sequence[str]) -> str | None:
        """A sentence about a rank that holds the others up; None where none does."""
        longest = max(self.own)
        if len(self.own) < 2 or longest < SLOW * self.median:
            return None
        return (
            f"Rank {self.slowest} ({hosts[self.slowest]}) is slow: a step takes it "
            f"{1e3 * longest:.0f} ms without waiting for others, the median rank "
            f"{1e3 * self.median:.0f} ms."
        )


class Heartbeats:
    """This rank's part of the watch, from ``start`` to ``stop``.

    Args:
        rank: of this process.
        world_size: ranks.
        store: by which they have met; a connection of its own is made.
        folder: for what the flight recorder holds when the training is ended.
        bound: seconds without a rank that comes further after which the job is ended.
        window: seconds between two ``StepTimes``.
        on_times: told them, on the first rank, from the thread.
        on_end: told why the job ends, on every rank; it does not return.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        store: dist.Store,
        folder: Path,
        bound: float,
        window: float,
        on_times: Callable[[StepTimes, Sequence[str]], None],
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.store = dist.PrefixStore(_PREFIX, store.clone())  # type: ignore[attr-defined]
        self.folder = folder
        self.bound = bound
        self.window = window
        self.on_times = on_times
        self.on_end = on_end or self._end
        self.read_every = min(_READ, bound / 5)
        self._now = (0, "the beginning", time.monotonic())  # count, phase, since
        self._in_step = False
        self._steps = 0
        self._own = 0.0
        self._heard: dict[int, tuple[str, float]] = {}
        self._window_start: list[Beat] | None = None
        self._window_ends = time.monotonic() + window
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeats", daemon=True)
        self._main = threading.get_ident()

    def start(self) -> None:
        """Begin to write and read."""
        self._thread.start()

    def stop(self) -> None:
        """No longer watch."""
        self._stopped.set()
        self._thread.join()

    def beat(self, phase: str, in_step: bool = True) -> None:
        """Note that the training has come further; its time from here on may be that of a step."""
        self._in_step = in_step
        self._now = (self._now[0] + 1, phase, time.monotonic())

    def step_done(self) -> None:
        """Count a step."""
        self._steps += 1

    def _watch(self) -> None:
        next_reading = looked = time.monotonic()
        try:
            while not self._stopped.wait(min(_LOOK, self.read_every)):
                frame = sys._current_frames().get(self._main)
                now = time.monotonic()
                if frame is None:
                    continue
                if self._in_step and whereabouts(frame).exchange is None:
                    self._own += now - looked
                looked = now
                if now >= next_reading:
                    next_reading = now + self.read_every
                    self._write(frame)
                    del frame
                    self._judge()
        except (dist.DistStoreError, dist.DistNetworkError, RuntimeError):
            return  # the store is gone with its process: whoever has started that says so

    def _write(self, frame: FrameType) -> None:
        count, phase, since = self._now
        found = whereabouts(frame)
        log = rank_log()
        seconds = time.monotonic() - since
        beat = Beat(
            host=socket.gethostname(),
            count=count,
            phase=phase,
            seconds=seconds,
            place=found.place,
            exchange=found.exchange,
            collective=open_collective() if seconds > self.bound / 2 else None,
            log="" if log is None else str(log),
            own_seconds=self._own,
            steps=self._steps,
        )
        self.store.set(str(self.rank), json.dumps(asdict(beat)))

    def _judge(self) -> None:
        if self.store.check([_VERDICT]):
            self.on_end(self.store.get(_VERDICT).decode())
            return
        beats = self._read()
        if beats is None:
            return
        self._tell_times(beats)
        verdict = hanging(beats, self.bound, _MISSED * self.read_every)
        if verdict is not None:
            self.on_end(self.store.compare_set(_VERDICT, "", verdict).decode())

    def _read(self) -> list[Beat] | None:
        """What all ranks have written last; None while one has written nothing yet."""
        names = [str(rank) for rank in range(self.world_size)]
        if not self.store.check(names):
            return None
        now = time.monotonic()
        beats = []
        for rank, content in enumerate(self.store.multi_get(names)):
            text = content.decode()
            if self._heard.get(rank, ("",))[0] != text:
                self._heard[rank] = (text, now)
            known: dict[str, Any] = json.loads(text)
            beats.append(Beat(**known | {"silent": now - self._heard[rank][1]}))
        return beats

    def _tell_times(self, beats: list[Beat]) -> None:
        """Tell how long a step took each rank in the window that is over."""
        before = self._window_start
        if before is None:
            self._window_start = beats
            return
        if time.monotonic() < self._window_ends:
            return
        self._window_start, self._window_ends = beats, time.monotonic() + self.window
        steps = min(new.steps - old.steps for new, old in zip(beats, before, strict=True))
        if self.rank == 0 and steps > 0:
            own = tuple(
                (new.own_seconds - old.own_seconds) / (new.steps - old.steps)
                for new, old in zip(beats, before, strict=True)
            )
            self.on_times(StepTimes(beats[0].steps, own), [beat.host for beat in beats])

    def _end(self, verdict: str) -> None:
        """Leave this rank's stacks in its log, let the others hear of it, and end the process."""
        log = rank_log()
        if log is None:
            faulthandler.dump_traceback(all_threads=True)
        else:
            with log.open("a") as file:
                file.write(f"{verdict}\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
        record = flight_record()
        if record is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / f"{COLLECTIVES}{self.rank}", record)
        told = self.store.add(_TOLD, 1)
        deadline = time.monotonic() + _MISSED * self.read_every
        while told < self.world_size and time.monotonic() < deadline:
            time.sleep(_LOOK)
            told = self.store.add(_TOLD, 0)
        end_at_once(HangError(verdict))
