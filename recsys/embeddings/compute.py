"""Computing embeddings whose bits do not depend on who else is computed with them.

A matrix product may take another path through the processor when its shape changes, and with it
another order of additions. So the exported tower always gets the same number of requests; what is
missing is filled with empty histories. What is left to show is that a request's place in the
batch does not matter, and ``check_composition`` shows it on real users before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.artifacts.timeline_tower import TimelineTowerArtifact
from recsys.core.errors import ArtifactError
from recsys.data.batches.requests import JaggedTimeline
from recsys.data.contract.schema import LENGTHS, TimelineKind
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.timelines import TimelineStore
from recsys.embeddings.changes import Moment
from recsys.embeddings.rows import quantize_rows


class TimelineEmbedder:
    """Users' timelines → 4-bit rows.

    Args:
        artifact: the exported tower.
        timelines: the users' timelines.
        moment: as of when.
        batch_users: requests per call of the tower.
    """

    def __init__(
        self,
        artifact: TimelineTowerArtifact,
        timelines: TimelineStore,
        moment: Moment,
        batch_users: int,
    ) -> None:
        self._artifact = artifact
        self._timelines = timelines
        self._moment = moment
        self._batch_users = batch_users
        self._fit_vocabulary = FitVocabulary(artifact.manifest.fit_vocabulary)

    def num_events(self, users: NDArray[np.int32]) -> NDArray[np.int64]:
        """[U] events that each user's embedding is computed from."""
        before = np.full(len(users), self._moment.cutoff)
        max_events = self._artifact.manifest.max_events
        return sum(
            (self._timelines.lengths(users, before, kind, max_events) for kind in TimelineKind),
            start=np.zeros(len(users), np.int64),
        )

    def rows(self, users: NDArray[np.int32]) -> NDArray[np.int64]:
        """[U, N_out, n] int64 for at most ``batch_users`` users."""
        embeddings = self._artifact.embed(
            self._timeline(users, TimelineKind.EXPLICIT),
            self._timeline(users, TimelineKind.IMPLICIT),
            torch.full((self._batch_users,), self._moment.as_of, dtype=torch.int64),
        )
        rows: NDArray[np.int64] = quantize_rows(embeddings[: len(users)]).numpy()
        return rows

    def many_rows(self, users: NDArray[np.int32]) -> NDArray[np.int64]:
        """[U, N_out, n] int64 for any number of users, those of similar history length together."""
        order = np.argsort(-self.num_events(users), kind="stable")
        rows: NDArray[np.int64] | None = None
        for start in range(0, len(users), self._batch_users):
            batch = order[start : start + self._batch_users]
            found = self.rows(users[batch])
            rows = np.empty((len(users), *found.shape[1:]), np.int64) if rows is None else rows
            rows[batch] = found
        assert rows is not None  # nobody asks for the rows of no user
        return rows

    def check_composition(self, users: NDArray[np.int32]) -> NDArray[np.int64]:
        """Compute users together, in reverse order and half of them: all must agree, bit for bit.

        Returns:
            Their rows.

        Raises:
            ArtifactError: they do not.
        """
        rows = self.rows(users)
        half = len(users) // 2
        same: Sequence[Callable[[], bool]] = (
            lambda: np.array_equal(self.rows(users[::-1])[::-1], rows),
            lambda: np.array_equal(self.rows(users[:half]), rows[:half]),
        )
        if not all(check() for check in same):
            raise ArtifactError(
                f"On this machine a user's embedding depends on the other users of its batch of "
                f"{self._batch_users}; publish with batch_users=1, which is slower and exact."
            )
        return rows

    def _timeline(self, users: NDArray[np.int32], kind: TimelineKind) -> JaggedTimeline:
        before = np.full(len(users), self._moment.cutoff)
        max_events = self._artifact.manifest.max_events
        timeline = self._timelines.histories(users, before, kind, max_events)
        timeline = self._fit_vocabulary.hide_unseen_events(timeline)
        padding = np.zeros(self._batch_users - len(users), np.int64)
        timeline[LENGTHS] = np.concatenate([timeline[LENGTHS], padding])
        return {name: _tensor(column) for name, column in timeline.items()}


def _tensor(column: NDArray) -> Tensor:
    """The column as a tensor; a view into the store is copied, since tensors may be written to."""
    return torch.from_numpy(column if column.flags.writeable else column.copy())
