"""Lists made before, by user: an LMDB that workers read while `recsys precompute` writes it.

Legend: B users, k places of a list.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.lmdb_folder import LmdbFolder, LmdbKind

_DATABASE = b"lists"
_KIND = LmdbKind(
    "store of lists",
    (_DATABASE,),
    "`recsys precompute` makes one",
    "remove the folder, and make it again with `recsys precompute`",
    DataError,
)
_KEY = struct.Struct(">q")


class StoredLists:
    """The lists of a generation.

    Args:
        path: the folder; made unless ``readonly``.
        readonly: for who gives them.

    Raises:
        DataError: the folder holds something else, or is damaged.
    """

    def __init__(self, path: Path, readonly: bool = True) -> None:
        self._folder = LmdbFolder(path, _KIND, readonly)

    def of(self, user: int) -> NDArray[np.int64]:
        """Item indices of a user's list, the best first; none where none was made."""
        with self._folder.transaction() as transaction:
            content = transaction.get(_KEY.pack(user), db=self._folder.databases[_DATABASE])
        return np.frombuffer(content or b"", np.int32).astype(np.int64)

    def put(self, users: NDArray[np.int64], lists: NDArray[np.int64]) -> None:
        """Replace the lists of users [B] by those of [B, k]; −1 where there are fewer.

        Raises:
            RecsysError: the file system is full; none was replaced.
        """
        with self._folder.transaction(write=True) as transaction:
            for user, items in zip(users.tolist(), lists, strict=True):
                content = items[items >= 0].astype(np.int32).tobytes()
                transaction.put(_KEY.pack(user), content, db=self._folder.databases[_DATABASE])

    def close(self) -> None:
        """Close the LMDB."""
        self._folder.close()
