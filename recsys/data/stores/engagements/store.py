"""The engagements of all users, sorted by user and time, memory-mapped.

Legend: U user indices, E engagements, V item indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import map_arrays
from recsys.data.stores.engagements.build import (
    OFFSETS,
    REPEATS,
    SEQUENCES,
    SKIPPED,
    ensure_engagements,
)
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.timelines.store import first_not_before


class Engagements:
    """Sequences of users, and the only place that cuts them.

    Attributes:
        offsets: [U + 1] int64: the engagements of user ``u`` are ``offsets[u]`` to
            ``offsets[u + 1]``; the unknown user 0 has none.
        item: [E] int32 item index, never 0.
        action_type: [E] int8 position in the manifest's ``action_types``.
        surface: [E] int8 position in the manifest's ``surfaces``.
        timestamp: [E] int64, ms; ascending within a user, ties in the order of the log.
    """

    def __init__(self, arrays: Mapping[str, NDArray]) -> None:
        self.offsets: NDArray[np.int64] = arrays[OFFSETS]
        self.item: NDArray[np.int32] = arrays["item"]
        self.action_type: NDArray[np.int8] = arrays["action_type"]
        self.surface: NDArray[np.int8] = arrays["surface"]
        self.timestamp: NDArray[np.int64] = arrays["timestamp"]

    def __len__(self) -> int:
        """E, the number of engagements."""
        return len(self.item)

    @cached_property
    def user(self) -> NDArray[np.int32]:
        """[E] the user of each engagement."""
        users = np.arange(len(self.offsets) - 1, dtype=np.int32)
        return np.repeat(users, np.diff(self.offsets))

    def history_end(
        self, user: ArrayLike, position: ArrayLike, gap_ms: int = 0
    ) -> NDArray[np.int64]:
        """Where the history of an engagement ends.

        Args:
            user: [B] user indices.
            position: [B] an engagement of each user.
            gap_ms: how long before the engagement the history ends.

        Returns:
            [B] the first position of the user whose timestamp is not strictly before the
            engagement's, less the gap: the history is ``offsets[user]`` up to there.
        """
        user, position = np.asarray(user), np.asarray(position)
        before = self.timestamp[position] - gap_ms
        return first_not_before(self.timestamp, self.offsets[user], position, before)

    def ends_before(self, user: ArrayLike, moment: ArrayLike) -> NDArray[np.int64]:
        """[B] the first position of each user whose timestamp is not strictly before a moment.

        Args:
            user: [B] user indices.
            moment: [B] ms.
        """
        user = np.asarray(user)
        before = np.broadcast_to(np.asarray(moment, np.int64), user.shape)
        return first_not_before(self.timestamp, self.offsets[user], self.offsets[user + 1], before)

    def events_between(self, first_ms: int, last_ms: int) -> NDArray[np.int64]:
        """Positions of the engagements of ``[first_ms, last_ms)``, oldest first, ties by user."""
        inside = np.flatnonzero((self.timestamp >= first_ms) & (self.timestamp < last_ms))
        return inside[np.argsort(self.timestamp[inside], kind="stable")]


class EngagementStore(Engagements):
    """Those of a prepared data set, memory-mapped.

    Pickled to another process it is opened there again.

    Attributes:
        path: folder of the arrays, inside the prepared data set.
        skipped: engagements left out since their item is unknown.
        repeats: every engagement of a user with an item is there, not only the first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        description = SEQUENCES.read(path)
        super().__init__(map_arrays(path, description))
        self.skipped = description.facts[SKIPPED]
        self.repeats = description.facts[REPEATS]

    @classmethod
    def open(
        cls,
        dataset: PreparedDataset,
        config: SequenceConfig,
        known_items: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Map the engagements of a data set, building them first where they are absent.

        They are kept in ``sequences/`` of the data set and built anew when the data set has grown,
        lost a user, or was prepared again. Of processes that want the same, one builds and the
        others wait.

        Args:
            dataset: the prepared data set.
            config: what counts as an engagement.
            known_items: [V] whether an item can be used, for example whether it has an embedding;
                engagements with other items are counted in ``skipped``. All where None.

        Raises:
            DataError: there is no engagement, or a file is damaged.
        """
        return cls(ensure_engagements(dataset, config, known_items))

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        """Open the store again in the process that unpickles it."""
        return type(self), (self.path,)
