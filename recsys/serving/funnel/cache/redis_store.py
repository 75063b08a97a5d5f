"""A FeedState in Redis: the last users forget themselves, and it may be gone for a while."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import redis

from recsys.core.errors import ArtifactError
from recsys.core.redis_client import client_of
from recsys.serving.funnel.cache.stores import Record, row_type

_T = TypeVar("_T")

_HEAD = struct.Struct(">Qq")  # generation, newest
#: Seconds that a list waits for an answer, and that nobody asks again once there was none.
_PATIENCE, _PAUSE = 0.05, 1.0


class RedisStore:
    """A store in a Redis, which processes of several machines share.

    What is put is there for the next one who asks, and Redis itself forgets a user who has not come
    for some time. The last one to write a user wins. A Redis that is gone costs a list one short
    wait a second, and is used again once it is back.

    Args:
        url: such as ``redis://host:6379/0``; ``?socket_timeout=`` in it is how many seconds a list
            waits.
        name: what it is kept under; others in the same Redis have other names.
        tasks: K names, in the order of the scores.
        seconds: after which a user is forgotten.

    Raises:
        ConfigError: ``url`` is no address of Redis.
    """

    def __init__(self, url: str, name: str, tasks: Sequence[str], seconds: float) -> None:
        self._type, self._seconds = row_type(len(tasks)), seconds
        self._client = client_of(url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE)
        kept = repr((name, list(tasks), self._type.descr))  # other columns are other users
        self._prefix = f"feed:{hashlib.blake2b(kept.encode(), digest_size=8).hexdigest()}:"
        self._gone: tuple[float, str] = (0.0, "")

    def get(self, user: int) -> Record | None:
        """What was last put.

        Raises:
            ArtifactError: Redis does not answer, or has not some moments ago.
        """
        content: Any = self._asked(lambda client: client.get(f"{self._prefix}{user}"))  # bytes
        if content is None or (len(content) - _HEAD.size) % self._type.itemsize:
            return None
        generation, newest = _HEAD.unpack_from(content)
        return Record(generation, newest, np.frombuffer(content, self._type, offset=_HEAD.size))

    def put(self, user: int, record: Record) -> None:
        """Keep it.

        Raises:
            ArtifactError: as ``get``.
        """
        content = _HEAD.pack(record.generation, record.newest) + record.rows.tobytes()
        milliseconds = max(round(self._seconds * 1_000), 1)
        self._asked(lambda client: client.set(f"{self._prefix}{user}", content, px=milliseconds))

    def expire(self, before: int) -> None:
        """Redis does so by itself."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _asked(self, ask: Callable[[redis.Redis], _T]) -> _T:
        until, why = self._gone
        if time.monotonic() < until:
            raise ArtifactError(why)
        try:
            return ask(self._client)
        except ArtifactError as error:
            self._gone = time.monotonic() + _PAUSE, str(error)
            raise
