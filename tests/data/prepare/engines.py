"""Engines and pieces of work for tests, importable by a worker of Ray."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.core.engines import EngineConfig
from recsys.data.prepare.pieces import WriteEvents, WrittenEvents
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.check import CHECKED_FILE

#: Few and small, so that they leave a small machine alone.
SMALL = EngineConfig("ray", workers=2, object_store_mb=80, block_rows=100)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKED_FILE  # that notes times of the files
    }


def assert_same(one: Path, other: Path) -> None:
    """The same files with the same content."""
    first, second = bytes_of(one), bytes_of(other)
    assert list(first) == list(second)
    assert [name for name in first if first[name] != second[name]] == []


def by_both(config: PrepareConfig) -> Path:
    """Prepare by one process and by Ray, and compare; returns the folder of the latter."""
    one, many = (config.out_folder.with_name(name) for name in ("one", "many"))
    prepare(replace(config, out=str(one)))
    prepare(replace(config, out=str(many), engine=SMALL))
    assert_same(one, many)
    return many


class Divided:
    """Does every piece by itself, as another process would: all it has is what can be pickled.

    Args:
        block_rows: rows of a log that one piece reads.
    """

    workers = 1

    def __init__(self, block_rows: int) -> None:
        self.block_rows: int | None = block_rows

    def map(
        self, task: Callable[[Any], Any], items: Iterable[Any], bulky: bool = False
    ) -> Iterator[Any]:
        """The results of a task."""
        for item in items:
            again = pickle.loads(pickle.dumps((task, item)))
            yield pickle.loads(pickle.dumps(again[0](again[1])))


class WriteEventsAfterDying(WriteEvents):
    """Kills the process that does the second partition, once."""

    def __call__(self, partition: int) -> WrittenEvents:
        """What became of the events of the partition."""
        died = Path(self.spill).parent.parent / "died"
        written = super().__call__(partition)
        if partition == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return written
