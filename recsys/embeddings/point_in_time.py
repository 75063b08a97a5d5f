"""Published user embeddings as a consumer may have seen them at a moment.

Legend: B requests, N vectors of a user, W width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.secrets import mask_address
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import UNKNOWN_INDEX
from recsys.embeddings.reader import read_rows
from recsys.embeddings.stores import Publication, StoredEmbedding, open_store
from recsys.embeddings.stores.base import UserId
from recsys.embeddings.users import Users


class PointInTimeEmbeddings:
    """User embeddings of several publications, each row's the newest that was servable then.

    A publication as of a moment is servable ``delay_hours`` after it. A row before that does not
    see it, so that no row sees what was computed from events after it; users without an embedding
    in the newest servable publication have none.

    A store is open only while it is read: LMDB's may not be open twice in a process, nor cross a
    fork.

    Args:
        dataset: whose users are asked about.
        stores: folders of LMDB, or addresses of Redis; of each the current publication counts.
        delay_hours: from the moment a publication was computed for until it is served.

    Raises:
        ConfigError: no store is named, or they hold embeddings of different shapes.
        ArtifactError: a store cannot be opened, or holds no publication.
    """

    def __init__(
        self, dataset: PreparedDataset, stores: Sequence[str], delay_hours: float = 0.0
    ) -> None:
        if not stores:
            raise ConfigError("user_embeddings.stores names no store of published embeddings.")
        self._dataset = dataset
        self._delay = round(delay_hours * MILLISECONDS_PER_HOUR)
        found = [(location, *look_at(location)) for location in stores]
        self._served = sorted(((one, what) for one, what, _ in found), key=lambda s: s[1].timestamp)
        shapes = {shape for *_, shape in found}
        if len(shapes) > 1:
            sizes = ", ".join(f"{vectors} x {width}" for vectors, width in sorted(shapes))
            raise ConfigError(
                f"user_embeddings.stores hold embeddings of different shapes ({sizes}); name "
                "publications of one model."
            )
        #: N and W.
        self.shape = shapes.pop()

    @property
    def publications(self) -> list[Publication]:
        """What rows may see, the oldest first."""
        return [publication for _, publication in self._served]

    def read(
        self, user: NDArray[np.integer], moment: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The embeddings of users as they were served at some moments.

        Args:
            user: [B] indices.
            moment: [B] ms.

        Returns:
            [B, N, W], zeros where there is none, and [B] whether there is one.

        Raises:
            ArtifactError: a record is damaged.
        """
        values = np.zeros((len(user), *self.shape), np.float32)
        known = np.zeros(len(user), np.bool_)
        servable = [one.timestamp + self._delay for one in self.publications]
        newest = np.searchsorted(servable, moment, side="right") - 1
        for number in np.unique(newest[newest >= 0]).tolist():
            rows = np.flatnonzero((newest == number) & (user != UNKNOWN_INDEX))
            users, place = np.unique(user[rows], return_inverse=True)
            found = self._rows(number, self._users.ids(self._position[users]))
            has = np.array([one is not None for one in found], np.bool_)
            if has.any():
                stacked = np.stack([one.rows for one in found if one is not None])
                vectors = np.zeros((len(users), *self.shape), np.float32)
                vectors[has] = read_rows(stacked)
                values[rows] = vectors[place]
                known[rows] = has[place]
        return values, known

    def _rows(self, number: int, users: list[UserId]) -> list[StoredEmbedding | None]:
        """Records of a publication, which must still be the one that was found."""
        location, publication = self._served[number]
        with open_store(location, readonly=True) as store:
            found = store.get_many(users)
        if any(one is not None and one.version > publication.version for one in found):
            raise ArtifactError(
                f"{named(location)} was published anew while it was read, so its embeddings may "
                "be of events after the rows; start again."
            )
        return found

    @cached_property
    def _users(self) -> Users:
        return Users.of(self._dataset)

    @cached_property
    def _position(self) -> NDArray[np.int64]:
        """Where each index is among the users."""
        position = np.zeros(self._dataset.manifest.vocabulary_sizes["user"], np.int64)
        position[self._users.index] = np.arange(len(self._users.index))
        return position


def look_at(location: str) -> tuple[Publication, tuple[int, int]]:
    """What a store publishes, and N and W of the first user that has an embedding.

    Raises:
        ArtifactError: it cannot be opened, or holds no publication or nobody's embedding.
    """
    with open_store(location, readonly=True) as store:
        publication = store.current()
        if publication is None:
            raise ArtifactError(f"{named(location)} holds no publication yet; run recsys publish.")
        for user in store.users():
            found = store.get(user)
            if found is not None:
                vectors, width = read_rows(found.rows).shape
                return publication, (vectors, width)
    raise ArtifactError(f"{named(location)} holds no user's embedding; publish into it.")


def named(location: str) -> str:
    """A store as the begin of a sentence, without the password of its address."""
    return f"The embedding store {mask_address(location)}"
