"""What sources, filters and scores of a funnel look at.

Legend: B requests, n pairs, A items that can be shown now, V items, G groups of users, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.stages import History

Integers = NDArray[np.int64]
_T = TypeVar("_T")

#: In columns, groups and favourites: what is not known, and shared with nobody.
NONE = 0


class Knowledge(History, Protocol):
    """What a service knows when it is asked; a played world has the same."""

    @property
    def alive(self) -> Integers:
        """[A] items that can be shown, oldest first."""
        ...

    @property
    def born(self) -> Integers:
        """[V] ms since when each item is there."""
        ...

    def group(self, user: Integers) -> Integers:
        """[B] group of users, such as their region, from 1; 0 where it is unknown."""
        ...

    def standing(self, name: str, make: Callable[[Integers, NDArray[np.float64]], _T]) -> _T:
        """What follows from what is alive and popular, which is made once as long as that stands.

        Args:
            name: of what is made; the same one is made in the same way.
            make: from the items alive [A], and how much each group of users engages with them of
                late [G, A]; group 0 is everybody.
        """
        ...

    def column(self, name: str) -> Integers:
        """[V] a column of the items, such as ``author``, from 1; 0 where it is unknown.

        Raises:
            ConfigError: items have no such column.
        """
        ...

    def number(self, name: str) -> NDArray[np.floating]:
        """[V] a number of the items, such as ``integrity``; NaN where it is unknown.

        Raises:
            ConfigError: items have no such number.
        """
        ...

    def favourites(self, name: str, user: Integers) -> Integers:
        """[B, f] values of a column that users engage with most, the best first; 0 for none."""
        ...

    def engagements(self, item: Integers) -> NDArray[np.float64]:
        """[n] how much all users engage with items of late."""
        ...

    def affinity(self, user: Integers, item: Integers) -> NDArray[np.float64]:
        """[n] how likely a user engages with an item, by what is counted of both."""
        ...

    def expected(self, user: Integers, item: Integers) -> NDArray[np.float64]:
        """[n, K] what is to be expected of a user with an item in each task, by what is counted."""
        ...
