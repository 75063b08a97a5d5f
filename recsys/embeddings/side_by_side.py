"""Two stores of embeddings read side by side, and a sample of the users of both.

Legend: U users, F numbers of a user's embedding.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.progress import track
from recsys.embeddings.likeness import cosines
from recsys.embeddings.reader import read_rows
from recsys.embeddings.stores import EmbeddingStore, StoredEmbedding
from recsys.embeddings.stores.base import UserId, encode_user

#: Users read at once: 32 MB of floats at the paper's size, of each store.
_USERS_PER_READ = 512


@dataclass(frozen=True, eq=False)
class Walked:
    """What there is in two stores.

    Attributes:
        users: of both, in the order of their keys.
        cosine: [U] of a user's two embeddings; NaN where one is all zeros.
        norms: [2, U] lengths in the one and in the other.
        only: how many users are in one alone.
        norm_sums: of all users of each store.
    """

    users: list[UserId]
    cosine: NDArray[np.float64]
    norms: NDArray[np.float64]
    only: tuple[int, int]
    norm_sums: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Sample:
    """Some of the users of both.

    Attributes:
        users: drawn.
        position: where they are among the users of both.
    """

    users: list[UserId]
    position: NDArray[np.int64]


def walk(first: EmbeddingStore, second: EmbeddingStore, shape: tuple[int, int]) -> Walked:
    """Read both stores, each user once.

    Args:
        first: a store.
        second: another one.
        shape: N and W of every embedding.

    Raises:
        ArtifactError: a record is damaged, or of another shape.
    """
    users: list[UserId] = []
    parts: list[NDArray[np.float64]] = []
    only_first, norms_first = 0, 0.0
    for chunk in track(_chunks(first.users()), "Comparing users"):
        found, others = first.get_many(chunk), second.get_many(chunk)
        both = [u for u in range(len(chunk)) if found[u] and others[u]]
        only_first += sum(one is not None for one in found) - len(both)
        has = [one for one in found if one is not None]
        norms_first += float(_norms(_values(has, shape)).sum())
        if both:
            one = _values([found[u] for u in both], shape)
            other = _values([others[u] for u in both], shape)
            parts.append(np.stack([cosines(one, other), _norms(one), _norms(other)]))
            users += [chunk[u] for u in both]
    only_second, norms_second = 0, 0.0
    for chunk in track(_chunks(second.users()), "Comparing users of the other"):
        found, others = second.get_many(chunk), first.get_many(chunk)
        only_second += sum(
            one is not None and other is None for one, other in zip(found, others, strict=True)
        )
        has = [one for one in found if one is not None]
        norms_second += float(_norms(_values(has, shape)).sum())
    order = sorted(range(len(users)), key=lambda u: encode_user(users[u]))
    numbers = np.concatenate([np.empty((3, 0)), *parts], axis=1)[:, order]
    return Walked(
        [users[u] for u in order],
        numbers[0],
        numbers[1:],
        (only_first, only_second),
        (norms_first, norms_second),
    )


def sample(walked: Walked, names: tuple[str, str], most: int, seed: int) -> Sample:
    """Draw users by a hash of their ids, so that the same are drawn from any store.

    Args:
        walked: what there is.
        names: of the stores, for the sentence.
        most: users to draw, at most.
        seed: of the hash.

    Raises:
        ConfigError: nobody has an embedding in both.
    """
    if not walked.users:
        raise ConfigError(
            f"No user has an embedding in both {names[0]} and {names[1]}; compare publications of "
            "one data set, whose ids are the same."
        )
    usable = np.flatnonzero(~np.isnan(walked.cosine))
    ranked = sorted(
        usable.tolist(), key=lambda u: (zlib.crc32(encode_user(walked.users[u]), seed), u)
    )
    position = np.sort(np.array(ranked[:most], np.int64))
    return Sample([walked.users[u] for u in position], position)


def _chunks(users: Iterable[UserId]) -> Iterator[list[UserId]]:
    walk = iter(users)
    while chunk := list(islice(walk, _USERS_PER_READ)):
        yield chunk


def sampled(
    store: EmbeddingStore, users: list[UserId], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """[U, F] embeddings of users who have one.

    Raises:
        ArtifactError: one has none any more, or of another shape.
    """
    values = np.empty((len(users), shape[0] * shape[1]), np.float32)
    for start in range(0, len(users), _USERS_PER_READ):
        found = store.get_many(users[start : start + _USERS_PER_READ])
        values[start : start + len(found)] = _values(found, shape)
    return values


def _values(found: Sequence[StoredEmbedding | None], shape: tuple[int, int]) -> NDArray[np.float32]:
    """[U, F] of records that all must be there."""
    flat = np.empty((len(found), shape[0] * shape[1]), np.float32)
    for row, one in enumerate(found):
        if one is None:
            raise ArtifactError(
                "An embedding store was changed while it was read; start the comparison again."
            )
        values = read_rows(one.rows)
        if values.shape != shape:
            raise ArtifactError(
                f"An embedding store holds embeddings of {shape[0]} x {shape[1]} numbers and of "
                f"{values.shape[0]} x {values.shape[1]}; publish everyone anew "
                "(only_changed=false)."
            )
        flat[row] = values.ravel()
    return flat


def _norms(values: NDArray[np.float32]) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.linalg.norm(values.astype(np.float64), axis=1)
    return norms
