"""A journal of live events in a Redis, which processes of several machines share.

```
live:<data set>:state           a hash: identity, birth (drawn when it was made), epoch, number
live:<data set>:events:<epoch>  sorted by number: each batch behind its number
live:<data set>:items           a list: what was announced
live:<data set>:lock            whoever writes
```

What is written goes in one transaction, which Redis carries out whole or not at all, and only while
nobody else has written since the writer has looked. Events of an epoch that is over go a minute
later, so that nobody misses some who has just begun to read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import redis
from numpy.typing import NDArray
from redis.client import Pipeline
from redis.exceptions import WatchError

from recsys.core.errors import ArtifactError, DataError, RecsysError
from recsys.core.redis_client import client_of
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.stores.live.journal import AwayError, Pages, Position
from recsys.data.stores.live.written import (
    decoded_batch,
    decoded_identity,
    decoded_item,
    encoded_batch,
    encoded_identity,
    encoded_item,
    joined,
    refuse_others,
)

_STATE = ("identity", "birth", "epoch", "number")
_NUMBER = struct.Struct(">Q")
#: Seconds that are waited for an answer, that nobody asks again to read once there was none, that
#: one writer waits for another and asks again after, after which a writer that has died counts for
#: nothing, and that events of a former epoch stay.
_PATIENCE, _PAUSE, _TURN, _AGAIN, _DEAD, _FORMER = 1.0, 1.0, 5.0, 0.005, 2.0, 60
_MEND = "empty that database, after `recsys data append` with the log of that time"


class RedisJournal:
    """The journal of a data set; all that open the same database of a Redis have the same.

    A batch is in Redis when ``writing`` has ended; whether it survives Redis itself follows from
    the persistence that Redis is configured with.

    Args:
        url: such as ``redis://host:6379/0``; ``?socket_timeout=`` in it is how many seconds are
            waited for an answer.
        manifest: of the data set whose events they are.

    Raises:
        ConfigError: ``url`` is no address of Redis.
        AwayError: it does not answer.
        DataError: what is there is damaged, or of another release.
    """

    path = None

    def __init__(self, url: str, manifest: DatasetManifest) -> None:
        patience = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
        self._client = client_of(url, **patience)
        digest = hashlib.blake2b(manifest.lineage[0].encode(), digest_size=8).hexdigest()
        self._prefix = f"live:{digest}:"
        self._process, self._birth = os.getpid(), b""
        self._gone: tuple[float, str] = (0.0, "")
        self.identify(manifest)

    def identify(self, manifest: DatasetManifest) -> None:
        """Note a generation of the data set, if it is newer than those that are noted.

        Raises:
            AwayError: Redis does not answer.
            DataError: it has forgotten events that this generation does not have.
        """
        with self._writing() as pages:
            if self._birth:
                self._known(pages)
            pages.identify(manifest)
        self._birth = pages.birth

    @contextmanager
    def reading(self) -> Iterator[Pages]:
        """The journal as it is at this moment.

        Raises:
            AwayError: Redis does not answer, or has not some moments ago, or has lost the events.
        """
        until, why = self._gone
        if time.monotonic() < until:
            raise AwayError(why)
        try:
            with self._telling():
                yield self._known(_RedisPages(self._client, self._client, self._prefix))
        except AwayError as error:
            self._gone = time.monotonic() + _PAUSE, str(error)
            raise

    @contextmanager
    def writing(self) -> Iterator[Pages]:
        """The journal, which nobody else writes to until the block ends.

        Raises:
            AwayError: Redis does not answer, or has lost the events; nothing was written, unless
                the answer alone was lost.
        """
        with self._writing() as pages:
            yield self._known(pages)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def _writing(self) -> Iterator[_RedisPages]:
        name = f"{self._prefix}lock"
        lock = self._client.lock(name, timeout=_DEAD, sleep=_AGAIN, blocking_timeout=_TURN)
        with ExitStack() as stack:
            stack.enter_context(self._telling())
            if not lock.acquire():
                raise AwayError(f"{self._where}: others write without a pause; come again.")
            stack.callback(_released, lock)
            pipeline = stack.enter_context(self._client.pipeline())
            pipeline.watch(f"{self._prefix}state")
            pages = _RedisPages(pipeline, self._client, self._prefix)
            yield pages
            pages.commit()
            self._gone = 0.0, ""

    def _known(self, pages: _RedisPages) -> _RedisPages:
        """Pages of the journal that was opened, not of one that was begun since."""
        if os.getpid() != self._process:
            raise DataError(
                f"{self._where} was opened before this process was forked off; open it in each "
                "worker process."
            )
        if pages.birth != self._birth:
            raise AwayError(
                f"{self._where} has lost the events that it had; start the service again to go on "
                "with what is there, and configure Redis to keep what it is given (appendonly)."
            )
        return pages

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            with self._client.telling():
                yield
        except ArtifactError as error:
            raise AwayError(str(error)) from error

    @property
    def _where(self) -> str:
        return f"Redis at {self._client.address}"


class _RedisPages:
    """An open journal.

    Args:
        reads: carries out commands at once.
        client: for what is said of it.
        prefix: of its keys.
    """

    def __init__(self, reads: redis.Redis | Pipeline, client: Any, prefix: str) -> None:
        self._reads, self._where, self._prefix = reads, f"Redis at {client.address}", prefix
        found: Any = reads.hmget(f"{prefix}state", _STATE)
        self._stored, birth, epoch, number = found
        self.birth: bytes = birth or b""
        self.position = Position(int(epoch or 0), int(number or 0))
        self._writes: list[Callable[[Pipeline], object]] = []

    def after(self, number: int) -> NDArray:
        """[n] all events after a batch."""
        last, batches = number, []
        ends = f"({number}", self.position.number
        found: Any = self._reads.zrange(self._events, *ends, byscore=True)
        for content in found:
            following = int.from_bytes(content[: _NUMBER.size], "big")
            batches.append(decoded_batch(following, content[_NUMBER.size :], self._damaged))
            if last and following != last + 1:
                raise self._damaged(f"batch {last + 1} is lost")
            last = following
        if last < self.position.number:
            raise self._damaged(f"batch {self.position.number} is lost")
        return joined(batches)

    def put(self, records: NDArray) -> None:
        """Write a batch."""
        number = self.position.number + 1
        content = {_NUMBER.pack(number) + encoded_batch(number, records): number}
        key = self._events
        self._writes.append(lambda pipeline: pipeline.zadd(key, content))  # type: ignore[arg-type]
        self._move(Position(self.position.epoch, number))

    def rewrite(self, keep: Callable[[NDArray], NDArray], forgotten: int) -> int:
        """Leave events out, for good."""
        former = self.after(0)
        kept = former[keep(former)]
        if removed := len(former) - len(kept):
            key = self._events
            self._writes.append(lambda pipeline: pipeline.expire(key, _FORMER))
            identity = self._identity()
            if identity is not None and forgotten > identity["forgotten"]:
                self._identify(identity["lineage"], forgotten)
            self._move(Position(self.position.epoch + 1, self.position.number))
            self.put(kept)
        return removed

    def announced(self, after: int) -> list[dict[str, Any]]:
        """What was announced after the first so many."""
        found: Any = self._reads.lrange(f"{self._prefix}items", after, -1)
        return [decoded_item(after + n, one, self._damaged) for n, one in enumerate(found)]

    def announce(self, items: Sequence[dict[str, Any]]) -> None:
        """Write down what is announced."""
        contents = [encoded_item(one) for one in items]
        key = f"{self._prefix}items"
        self._writes.append(lambda pipeline: pipeline.rpush(key, *contents))
        self._set({})  # so that who has looked meanwhile does not write behind it

    def identify(self, manifest: DatasetManifest) -> None:
        """Compare whose events they are, and note the newest generation of the data set."""
        identity = self._identity()
        if identity is None:
            self.birth = secrets.token_hex(8).encode()
            self._set({"birth": self.birth})
            self._identify(manifest.lineage, 0)
        elif refuse_others(identity, manifest, self._where):
            self._identify(manifest.lineage, identity["forgotten"])

    def commit(self) -> None:
        """Have Redis carry out what is to be written, all of it or nothing.

        Raises:
            AwayError: somebody has written since.
        """
        pipeline = self._reads
        assert isinstance(pipeline, Pipeline)
        if self._writes:
            pipeline.multi()
            for write in self._writes:
                write(pipeline)
            try:
                pipeline.execute()
            except WatchError:
                raise AwayError(f"{self._where}: another one has written; come again.") from None

    @property
    def _events(self) -> str:
        return f"{self._prefix}events:{self.position.epoch}"

    def _identity(self) -> dict[str, Any] | None:
        if self._stored is None:
            return None
        return decoded_identity(self._stored, self._where, _MEND, self._damaged)

    def _identify(self, lineage: Sequence[str], forgotten: int) -> None:
        self._stored = encoded_identity(lineage, forgotten)
        self._set({"identity": self._stored})

    def _move(self, position: Position) -> None:
        self.position = position
        self._set({"epoch": position.epoch, "number": position.number})

    def _set(self, fields: dict[str, Any]) -> None:
        changed: dict[Any, Any] = {**fields, "changed": secrets.token_hex(8)}
        key = f"{self._prefix}state"
        self._writes.append(lambda pipeline: pipeline.hset(key, mapping=changed))

    def _damaged(self, finding: str) -> RecsysError:
        return DataError(f"The live events in {self._where} are damaged ({finding}); {_MEND}.")


def _released(lock: Any) -> None:
    # it was held for so long that another one may have it, or Redis is gone
    with suppress(redis.RedisError, ArtifactError):
        lock.release()
