"""What a model has made of users before it looked at candidates, kept for a time.

The simple policy between none and a cache of scores: every candidate is scored as of now, by what
the model made of the user up to T1 ago. Unlike scores it is kept by each process for itself.

Legend: B requests.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.cache.feed_state import NOBODY
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.stages import Scorer


class UserSides:
    """Sides by user with the moments they are of; they belong to one model, which knows them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[int, Any]] = OrderedDict()  # those put last at the end

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, user: int, moment: int, max_age_ms: int) -> Any | None:
        """The side of a user, if it is no older, nor of a moment that is yet to come."""
        of, side = self._kept.get(user, (moment, None))
        return side if 0 <= moment - of <= max_age_ms else None

    def put(self, user: int, moment: int, side: Any, users: int) -> None:
        """Keep it, and forget those put first where more than so many users have one."""
        if user == NOBODY:
            return
        self._kept.pop(user, None)
        self._kept[user] = moment, side
        while len(self._kept) > users:
            self._kept.popitem(last=False)


@dataclass(frozen=True, eq=False)
class KeptSides:
    """The sides of a model as a funnel's cache declares them.

    Attributes:
        sides: of the model.
        max_age_ms: T1.
        users: whose sides are kept, at most.
    """

    sides: UserSides
    max_age_ms: int
    users: int

    def get(self, user: int, moment: int) -> Any | None:
        """That of a user, if it is there and young enough."""
        return self.sides.get(user, moment, self.max_age_ms)

    def put(self, user: int, moment: int, side: Any) -> None:
        """Keep it."""
        self.sides.put(user, moment, side, self.users)

    def of(self, requests: Requests) -> NDArray[np.bool_]:
        """[B] for whom one is there."""
        pairs = zip(requests.user.tolist(), requests.moment.tolist(), strict=True)
        return np.array([self.get(*pair) is not None for pair in pairs], np.bool_)


@runtime_checkable
class UserSided(Scorer, Protocol):
    """A scorer that makes something of a user once, and scores any candidates by it."""

    @property
    def sides(self) -> UserSides:
        """Those of its model."""
        ...

    def keeping(self, kept: KeptSides) -> Scorer:
        """The same, which makes only what is not kept."""
        ...
