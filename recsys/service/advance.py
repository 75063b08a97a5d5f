"""Lists that are made when users open the app, and what is shown of them (Smart Cache §4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from recsys.core.errors import ConfigError, RecsysError
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.service import metrics
from recsys.service.answer import Answer
from recsys.service.lane import FullError, Lane, LateError
from recsys.service.messages import Open, Recommend
from recsys.service.openings import Openings, Waiting
from recsys.service.served import Served
from recsys.serving.funnel.funnel import SECOND, VALUE, Outcome
from recsys.serving.funnel.ledger import decoded, encoded
from recsys.serving.funnel.prefetch.shown import shown_at, without

_LOG = logging.getLogger("uvicorn.error")
#: Lists that are being made, or looked for, in a worker at a time.
_WAITING = 64


@dataclass(frozen=True)
class Decision:
    """What becomes of an opening of the app.

    Attributes:
        user: index; 0 for one that is not known.
        moment: of the opening, ms.
        listed: whether a list is to be made.
        visit: how likely a visit is; None where nobody asks.
        wait_ms: how long it would wait; None likewise, and where the model does not say.
        why: no list is made.
    """

    user: int
    moment: int
    listed: bool
    visit: float | None = None
    wait_ms: float | None = None
    why: str | None = None


def decide(served: Served, openings: Openings, asked: Open) -> Decision:
    """Count an opening of the app, and say whether a list is worth making.

    Raises:
        DataError: what is known of the user is damaged.
    """
    moment = served.now() if asked.moment is None else asked.moment
    user = int(served.users.indices([asked.user])[0])
    if user == 0:
        return Decision(user, moment, False, why="the user is not known")
    models, config = served.prefetcher, served.declared.cache.prefetch
    kinds = (np.nan, np.nan)
    if models is not None:
        kinds = models.number("device", asked.device), models.number("network", asked.network)
    engaged = served.known.engaged_at(user, moment)
    features = openings.opened(user, moment, engaged, asked.notified, kinds, asked.waited_ms)
    if models is None:
        return Decision(user, moment, False, why="no lists are made at this operating point")
    visit = float(models.visit_probability(features)[0])
    wait = None if models.wait is None else float(models.wait_ms(features)[0])
    chosen = bool(models.chosen(features, config)[0])
    if chosen and openings.waits(user, moment, _where(served)):
        return Decision(user, moment, False, visit, wait, "a list waits already")
    why = None if chosen else "not likely enough, or not late enough"
    return Decision(user, moment, chosen, visit, wait, why)


def make(served: Served, number: int, asked: Open, decision: Decision) -> Answer:
    """The list, as of the opening."""
    wanted = Recommend(asked.user, asked.k, decision.moment, asked.context)
    return served.answer(number, wanted)


def keep(served: Served, openings: Openings, asked: Open, made: Answer) -> int | None:
    """Keep a list until it is shown or too old.

    Returns:
        The pairs of one that it takes the place of, which was made in vain; None for none.
    """
    assert made.outcome is not None
    moment = int(made.requests.moment[0])
    hours = served.declared.cache.prefetch.max_age_hours
    waiting = Waiting(
        made=moment,
        until=moment + round(hours * MILLISECONDS_PER_HOUR),
        pairs=pairs_scored(made.outcome),
        k=asked.k,
        where=_where(served),
        context=asked.context,
        body=encoded(served.noted_of(made.requests), made.outcome, str(made.generation)),
    )
    return openings.keep(int(made.requests.user[0]), waiting)


def take(served: Served, openings: Openings, asked: Recommend) -> tuple[Answer, int] | None:
    """The list that waits for a user, and the pairs that were scored for it; None for none.

    What the user has seen since, or cannot be shown any more, is left out of it.

    Raises:
        DataError: it is damaged.
    """
    moment = served.now() if asked.moment is None else asked.moment
    user = int(served.users.indices([asked.user])[0])
    if user == 0:
        return None
    found = openings.visited(user, moment, asked.k, _where(served), asked.context)
    if found is None:
        return None
    requests, outcome = shown_at(*decoded(found.body), moment)
    of, known = outcome.candidates, served.known
    items = served.found_items(of.item)
    seen = known.seen(np.full(len(items), user), np.full(len(items), moment), items)
    gone = seen | ~known.is_alive(items, moment) | (items == 0)
    outcome = without(outcome, gone, served.described.stages.index("seen"))
    of = outcome.candidates
    over = of.position > asked.k
    if over.any():
        outcome = without(outcome, over, len(served.described.stages) - 1)
        of = outcome.candidates
    shown = of.listed()
    answer = Answer(
        int(requests.number[0]),
        served.items.raw(items[shown]),
        of.scores[VALUE][shown].tolist(),
        requests,
        served.generation.number,
        outcome=outcome,
        described=served.described,
        in_advance=True,
    )
    return answer, found.pairs


def pairs_scored(outcome: Outcome) -> int:
    """Pairs that the second stage's scorer was asked about, samples included."""
    of = outcome.candidates
    predicted = ~np.isnan(of.scores[SECOND]).all(axis=1)
    sampled = 0 if outcome.samples is None else len(outcome.samples.at)
    return int((predicted & ~of.cached).sum()) + sampled


def refuse_without_models(served: Served) -> None:
    """Refuse openings where nobody says what they are worth.

    Raises:
        ConfigError: neither the funnel nor an operating point of it names a prefetcher.
    """
    if not served.generation.makes_lists_in_advance:
        raise ConfigError(
            "the funnel that is served makes no lists in advance, for cache.prefetch.models names "
            "no prefetcher; train one with `recsys funnel prefetcher`, and give its file."
        )


def _where(served: Served) -> str:
    return f"{served.generation.number} {served.point or ''}"


class Advance:
    """Lists in advance of a worker; those that wait are all workers'.

    Args:
        path: of what workers share.
        wait_ms: that a visit waits for a list that is being made here.
    """

    def __init__(self, path: Path, wait_ms: float) -> None:
        self._path, self._seconds = path, wait_ms / 1_000
        self._lane = Lane("advance", _WAITING)
        self._open: Openings | None = None
        self._making: dict[int, asyncio.Task[None]] = {}

    async def opened(
        self, served: Served, asked: Open, making: Callable[[Decision], Awaitable[Answer]]
    ) -> Decision:
        """Decide, and have a list made beside.

        Args:
            served: at its operating point.
            asked: by whom the app was opened.
            making: a list for a decision; it raises ``FullError`` where others come first.

        Raises:
            ConfigError: the service makes no lists in advance.
            FullError: so many wait already.
            RecsysError: what is known of the user cannot be read or written.
        """
        refuse_without_models(served)
        decision = await self._lane.run(partial(decide, served, self._openings(), asked))
        if decision.listed and decision.user in self._making:
            return replace(decision, listed=False, why="a list is being made")
        if decision.listed:
            task = asyncio.create_task(self._make(served, asked, decision, making))
            self._making[decision.user] = task
            task.add_done_callback(partial(self._made, decision.user))
        return decision

    async def visited(self, served: Served, asked: Recommend) -> Answer | None:
        """Count a visit; the list that was made for it, or is just being made; None for none."""
        if not served.generation.makes_lists_in_advance:
            return None
        making = self._making.get(int(served.users.indices([asked.user])[0]))
        try:
            if making is not None:
                await asyncio.wait([making], timeout=self._seconds)
            found = await self._lane.run(partial(take, served, self._openings(), asked))
        except FullError:
            return None
        except RecsysError as error:  # a list that is made now will do
            metrics.ADVANCE.labels("failed").inc()
            _LOG.warning("A list in advance cannot be used: %s", error)
            return None
        if found is None:
            return None
        answer, pairs = found
        _count("shown", pairs)
        return answer

    async def expire(self, served: Served) -> None:
        """Count what was made in vain."""
        if self._open is not None:
            for pairs in await self._lane.run(
                partial(self._open.expire, served.now()), None, False
            ):
                _count("wasted", pairs)

    def close(self) -> None:
        """Close what is open."""
        self._lane.close()
        if self._open is not None:
            self._open.close()

    async def _make(
        self,
        served: Served,
        asked: Open,
        decision: Decision,
        making: Callable[[Decision], Awaitable[Answer]],
    ) -> None:
        try:
            answer = await making(decision)
            if answer.outcome is None or answer.unpredicted or not answer.items:
                metrics.ADVANCE.labels("failed").inc()
                return
            _count("made", pairs_scored(answer.outcome))
            former = await self._lane.run(partial(keep, served, self._openings(), asked, answer))
            if former is not None:
                _count("wasted", former)
        except (FullError, LateError):
            metrics.ADVANCE.labels("declined").inc()
        except Exception:  # nobody waits for it
            metrics.ADVANCE.labels("failed").inc()
            _LOG.exception("A list in advance failed")

    def _made(self, user: int, task: asyncio.Task[None]) -> None:
        if self._making.get(user) is task:
            del self._making[user]

    def _openings(self) -> Openings:
        if self._open is None:
            self._open = Openings(self._path)
        return self._open


def _count(outcome: str, pairs: int) -> None:
    metrics.ADVANCE.labels(outcome).inc()
    metrics.ADVANCE_PAIRS.labels(outcome).inc(pairs)
