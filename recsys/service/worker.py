"""A process of the service: the generation it serves, the threads it has, what it remembers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from recsys.core.console import message_console
from recsys.core.errors import DataError, RecsysError
from recsys.data.stores.live.events import Reported
from recsys.service import metrics
from recsys.service.advance import Advance, Decision, make
from recsys.service.answer import Answer
from recsys.service.config import ServeConfig
from recsys.service.facts import item_facts
from recsys.service.generations import Generation, ServiceState
from recsys.service.lane import FullError, Lane, LateError
from recsys.service.lists import StoredLists
from recsys.service.messages import Event, Item, Open, Recommend
from recsys.service.numbers import RequestNumbers, made_at
from recsys.service.reports import announce, append, withdraw
from recsys.service.served import Served
from recsys.serving.funnel.funnel import SECOND
from recsys.serving.funnel.ledger import Ledger, LedgerConfig, explain, explained

_LOG = logging.getLogger("uvicorn.error")
#: Why a list is given that was made before; or since the second stage has predicted nothing.
BUSY, LATE = "busy", "late"
#: Seconds between looks at the pointer, and between lists made for later.
_LOOK, _REFRESH = 0.25, 5.0
#: Of its time that a worker gives to taking up items that were announced, at most.
_GROWING = 0.05
#: Share of the requests that may wait with which a list in advance is made: visits come first.
_ROOM = 0.5
#: Requests of this process that are remembered whole.
_REMEMBERED = 256


@dataclass(frozen=True, eq=False)
class _Serving:
    """What belongs to a generation.

    Attributes:
        served: the generation.
        ledger: where its requests are noted.
        stages: what its stages do is counted there.
    """

    served: Served
    ledger: Ledger
    stages: metrics.StageMetrics


class Worker:
    """Answers requests by the current generation of a state.

    Args:
        config: of the service.

    Attributes:
        refused: the generation that the pointer names though it cannot be served, and why.

    Raises:
        RecsysError: the current generation cannot be served.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._state = ServiceState(Path(config.state))
        limits = config.limits
        self._funnel = Lane("funnel", limits.waiting)
        self._fallback = Lane("fallback", limits.fallbacks)
        self._reports = Lane("reports", limits.fallbacks)
        self._beside = Lane("beside", limits.fallbacks)
        self._advance = Advance(self._state.openings, limits.wait_ms)
        self._numbers = RequestNumbers()
        self._remembered: OrderedDict[int, Answer] = OrderedDict()
        self._stamp = self._state.stamp()
        self._wanted_point, self._counted_at = self._state.point(), ""
        self._longest, self._rush = 0, float("-inf")  # queue since the last look; end of the rush
        self.refused: tuple[int, str] | None = None
        served = Served.open(self._state.current(), config, self._state)
        served = served.at(self._point(served.generation))
        served.refresh()
        self._serving = self._begun(served)

    @property
    def served(self) -> Served:
        """What is served."""
        return self._serving.served

    async def watch(self) -> None:
        """Take up generations as the pointer names them, and make lists for later, for ever."""
        refreshed, grows = time.monotonic(), 0.0
        while True:
            await asyncio.sleep(_LOOK)
            metrics.LEDGER_LOST.set(self._serving.ledger.lost)
            try:
                stamp = self._state.stamp()
                if stamp != self._stamp:
                    self._stamp = stamp
                    await self._swap()
                    self._wanted_point = self._state.point()
                elif (point := self._point(self.served.generation)) != self.served.point:
                    await self._go_over(point)
                elif time.monotonic() > grows and self.served.dataset.live.is_behind:
                    grows = time.monotonic() + await self._grow() / _GROWING
                elif time.monotonic() - refreshed > _REFRESH:
                    refreshed = time.monotonic()
                    now = await self.now()
                    await self._beside.run(partial(self.served.known.renew, now), bounded=False)
                    await self._funnel.run(self.served.refresh, bounded=False)
                    self._open_lists(self.served)
                    await self._advance.expire(self.served)
            except Exception:  # what is served goes on, whatever is wrong with what comes
                _LOG.exception("Looking after generation %d failed", self.served.generation.number)

    async def recommend(self, asked: Recommend) -> Answer:
        """A list for a user.

        Raises:
            ConfigError: the changes make no funnel.
            FullError: so many wait that not even a list made before can be given.
            LateError: nor in time.
        """
        serving, number = self._serving, self._numbers.next()
        served = serving.served
        visits = not asked.changes and asked.draws is None
        if visits and (ahead := await self._advance.visited(served, asked)) is not None:
            self._noted_in(serving, ahead)
            self._remember(ahead)
            return ahead
        why = None
        try:
            answer = await self._in_funnel(partial(served.answer, number, asked))
            if answer.unpredicted and served.has_list(asked.user):
                why = SECOND
        except FullError:
            why = BUSY
        except LateError:
            why = LATE
        if why is not None:
            metrics.FALLBACKS.labels(why).inc()
            instead = partial(served.fallback, why, number, asked)
            return await self._fallback.run(instead, self.config.limits.wait_ms / 1_000)
        if visits and answer.outcome is not None:
            serving.stages.add(answer.outcome)
            self._noted_in(serving, answer)
        self._remember(answer)
        return answer

    async def opened(self, asked: Open) -> Decision:
        """Whether a list is made beside, for a user who has opened the app.

        Raises:
            ConfigError: the service makes no lists in advance.
            FullError: so many wait already.
            RecsysError: what is known of the user cannot be read or written.
        """
        serving = self._serving

        async def making(decision: Decision) -> Answer:
            if self._funnel.length > _ROOM * self.config.limits.waiting:
                raise FullError
            work = partial(make, serving.served, self._numbers.next(), asked, decision)
            answer = await self._in_funnel(work)
            if answer.outcome is not None:
                serving.stages.add(answer.outcome)
            return answer

        return await self._advance.opened(serving.served, asked, making)

    def _noted_in(self, serving: _Serving, answer: Answer) -> None:
        assert answer.outcome is not None
        requests = serving.served.noted_of(answer.requests)
        serving.ledger.note(requests, answer.outcome, str(answer.generation))

    def _remember(self, answer: Answer) -> None:
        self._remembered[answer.number] = answer
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    async def _in_funnel(self, work: Any) -> Answer:
        metrics.QUEUE.set(self._funnel.length)
        self._longest = max(self._longest, self._funnel.length)
        try:
            found: Answer = await self._funnel.run(work, self.config.limits.wait_ms / 1_000)
            return found
        finally:
            metrics.QUEUE.set(self._funnel.length)

    async def report(self, events: Sequence[Event]) -> Reported:
        """Take in events; they are on the disk, and known to every process, when it returns.

        Raises:
            FullError: so many wait already.
            RecsysError: they could not be written.
        """
        reported = await self._reports.run(partial(append, self.served, events, self.config.clock))
        metrics.EVENTS.labels("taken").inc(reported.taken)
        for reason, number in reported.set_aside.items():
            metrics.EVENTS.labels(reason).inc(number)
        return reported

    async def announce(self, items: Sequence[Item]) -> Reported:
        """Take in items; they are on the disk when it returns, and candidates within seconds.

        Raises:
            ConfigError: one states what the data set states of no item.
            FullError: so many wait already.
            RecsysError: they could not be written.
        """
        reported = await self._reports.run(partial(announce, self.served, items, self.config.clock))
        metrics.ITEMS.labels("taken").inc(reported.taken)
        for reason, number in reported.set_aside.items():
            metrics.ITEMS.labels(reason).inc(number)
        return reported

    async def withdraw(self, item: str) -> bool:
        """Take an item out of all lists that begin from now on; whether there is one.

        Raises:
            ConfigError: the data set has hashed ids of items.
            FullError: so many wait already.
            RecsysError: it could not be written.
        """
        found: bool = await self._reports.run(partial(withdraw, self.served, item))
        metrics.ITEMS.labels("withdrawn" if found else "unknown").inc()
        return found

    async def explained(self, number: int) -> dict[str, Any]:
        """What became of the candidates of a request, of any process.

        Raises:
            DataError: it is not known.
        """
        if number in self._remembered:
            return self.explain(self._remembered[number])
        until = made_at(number) + (self.config.ledger_seconds + 5) * 1_000
        while True:
            try:
                frame = await self._beside.run(partial(self._noted, number))
                return {"request": str(number), "candidates": self._rows(frame)}
            except DataError:
                # another process may not have written it down yet
                if not time.time() * 1_000 < until < time.time() * 1_000 + 3_600_000:
                    raise
            await asyncio.sleep(_LOOK)

    def explain(self, answer: Answer) -> dict[str, Any]:
        """What became of the candidates of a request that the funnel has answered."""
        assert answer.described is not None and answer.outcome is not None
        return {
            "request": str(answer.number),
            "moment": int(answer.requests.moment[0]),
            "seconds": answer.outcome.seconds,
            "missed": answer.outcome.missed,
            "candidates": self._rows(explained(answer.described, answer.outcome)),
        }

    @property
    def ledger_problem(self) -> str | None:
        """Why the last request that could not be noted was not."""
        return self._serving.ledger.problem

    async def now(self) -> int:
        """The moment of a request that does not say its own, ms."""
        return await self._funnel.run(self.served.refreshed_now, bounded=False)

    async def beside(self, work: Any) -> Any:
        """What work gives that no list waits for."""
        return await self._beside.run(work)

    def close(self) -> None:
        """Write what waits to be written."""
        for lane in (self._funnel, self._fallback, self._reports, self._beside):
            lane.close()
        self._advance.close()
        self._serving.ledger.close()
        self.served.close()

    def _begun(self, served: Served) -> _Serving:
        """A generation that is served from now on."""
        number = served.generation.number
        config = LedgerConfig(seconds_per_file=self.config.ledger_seconds)
        self._open_lists(served)
        ledger = Ledger(self._state.ledger(number, served.point), served.described, config)
        metrics.GENERATION.set(number)
        metrics.POINT.labels(self._counted_at).set(0)
        for point in (None, *served.generation.points):
            metrics.POINT.labels(point or "").set(point == served.point)
        self._counted_at = served.point or ""
        return _Serving(served, ledger, metrics.StageMetrics(served.described))

    def _open_lists(self, served: Served) -> None:
        """Give lists that were made before, once they are there."""
        path = self._state.lists(served.generation.number)
        if served.stored is None and path.exists():
            with suppress(DataError):  # it is just being made
                served.stored = StoredLists(path)

    async def _swap(self) -> None:
        """Load what the pointer names beside what is served, and serve it; or go on as before."""
        generation: Generation | None = None
        try:
            generation = self._state.current()
            if generation.number == self.served.generation.number:
                self.refused = None
                return
            opening = partial(Served.open, generation, self.config, self._state, self.served)
            served = await self._beside.run(opening, bounded=False)
            await self._funnel.run(served.refresh, bounded=False)
            former, self._serving = self._serving, self._begun(served)
            self.refused = None
            await asyncio.sleep(self.config.limits.wait_ms / 1_000)  # for those who have it still
            await self._beside.run(former.ledger.close, bounded=False)
            await self._beside.run(former.served.close, bounded=False)
        except (RecsysError, OSError) as error:
            self.refused = (generation.number if generation else 0, str(error))
            going_on = self.served.generation.number
            message_console().print(f"recsys: generation {going_on} goes on: {error}")

    def _point(self, generation: Generation) -> str | None:
        """At which operating point of a generation to be now."""
        load, now = self.config.load, time.monotonic()
        if self._longest > load.above * self.config.limits.waiting:
            self._rush = now + load.seconds
        self._longest = self._funnel.length
        point = load.point if now < self._rush and load.point is not None else self._wanted_point
        return point if point in generation.points else None

    async def go_over(self, point: str | None) -> None:
        """Have all workers go over to an operating point.

        Raises:
            ConfigError: the generation has none of that name.
        """
        known = self.served.generation.known_point(point)
        await self.beside(partial(self._state.go_over, known))

    async def _go_over(self, point: str | None) -> None:
        there = await self._beside.run(partial(self.served.at, point), bounded=False)
        former, self._serving = self._serving, self._begun(there)
        await asyncio.sleep(self.config.limits.wait_ms / 1_000)  # for those who have it still
        await self._beside.run(former.ledger.close, bounded=False)

    async def _grow(self) -> float:
        """Take up items that were announced, beside what is served; returns the seconds it took."""
        began = time.monotonic()
        grown = await self._beside.run(self.served.grown, bounded=False)
        await self._funnel.run(grown.refresh, bounded=False)
        self._serving = replace(self._serving, served=grown)
        return time.monotonic() - began

    def _noted(self, number: int) -> pl.DataFrame:
        """The candidates of a request in the ledger of whichever generation it was of."""
        for folder in self._state.ledgers():
            with suppress(DataError):
                return explain(folder, number)
        raise DataError(f"no ledger holds a request {number}.")

    def _rows(self, frame: pl.DataFrame) -> list[dict[str, Any]]:
        items = self.served.found_items(frame["item"].to_numpy())
        facts = item_facts(self.served.dataset, items)
        raw = self.served.items.raw(items)
        return [
            {**row, "item": of, "facts": known}
            for row, of, known in zip(frame.to_dicts(), raw, facts, strict=True)
        ]
