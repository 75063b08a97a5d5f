"""How timelines lie on disk: blocks of columns, and the one file that names the valid blocks.

A store is a folder of block files and ``CURRENT.json``. A *segment* is what one append wrote; it
has one block per partition of users (or none, where no event fell into the partition). A block
holds, per timeline kind, its users in ascending order, the offset of each user's first event, and
one array per column, events of a user side by side and sorted by time. A file that
``CURRENT.json`` does not name is not part of the store.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.core.checksums import FileMark
from recsys.core.durable import sync_file
from recsys.core.errors import DataError
from recsys.core.json_files import read_json, write_json
from recsys.core.paths import plain_name
from recsys.data.contract.manifest import PREPARE_AGAIN
from recsys.data.contract.schema import TIMELINE_COLUMNS, TimelineKind

FORMAT_VERSION = 2
CURRENT = "CURRENT.json"
BLOCK_SUFFIX = ".block"

_KIND = "list of timelines"
_ALIGNMENT = 64

#: Events of one partition, any order: ``user`` and the columns of one timeline kind.
Events = dict[str, NDArray]


@dataclass(frozen=True)
class BlockEntry:
    """One block file as ``CURRENT.json`` names it.

    Attributes:
        file: file name in the store's folder.
        users: number of users by timeline kind.
        events: number of events by timeline kind.
        mark: size and checksum of the file.
    """

    file: str
    users: dict[str, int]
    events: dict[str, int]
    mark: FileMark

    @classmethod
    def from_json(cls, content: dict) -> BlockEntry:
        """The reverse of ``asdict``."""
        return cls(**{**content, "mark": FileMark(**content["mark"])})


@dataclass(frozen=True)
class Segment:
    """What one append wrote: one block per partition, ``None`` where it has no events."""

    blocks: tuple[BlockEntry | None, ...]


@dataclass(frozen=True)
class StoreManifest:
    """The content of ``CURRENT.json``.

    Attributes:
        num_partitions: number of user partitions, fixed when the store is made.
        commit: number of commits so far; new block files carry it in their name.
        segments: oldest first; among events of equal time the older segment's come first.
    """

    num_partitions: int
    commit: int
    segments: tuple[Segment, ...]

    @property
    def blocks(self) -> Iterator[BlockEntry]:
        """All block files of the store."""
        return (block for segment in self.segments for block in segment.blocks if block)

    @property
    def files(self) -> set[str]:
        """Names of all block files of the store."""
        return {block.file for block in self.blocks}

    def save(self, folder: Path) -> None:
        """Make this the store's content, in one atomic step."""
        write_json(folder / CURRENT, _KIND, {"format_version": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> StoreManifest:
        """Read ``CURRENT.json``.

        Raises:
            DataError: there is no store in ``folder``, it is damaged, or of another version.
        """
        path = folder / CURRENT
        if not path.is_file():
            raise DataError(
                f"{folder} holds no timelines (no {CURRENT} in it); "
                "make them with `recsys data prepare`."
            )
        content = read_json(path, _KIND, DataError, PREPARE_AGAIN)
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise DataError(
                f"{path} has format version {version}, this release reads version "
                f"{FORMAT_VERSION}; {PREPARE_AGAIN}"
            )
        segments = tuple(
            Segment(tuple(BlockEntry.from_json(b) if b else None for b in segment["blocks"]))
            for segment in content["segments"]
        )
        try:
            for block in (block for segment in segments for block in segment.blocks if block):
                plain_name(block.file)
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}; {PREPARE_AGAIN}") from error
        return cls(content["num_partitions"], content["commit"], segments)


@dataclass(frozen=True)
class Block:
    """One timeline kind of one block file, memory-mapped.

    Attributes:
        users: [U] int32, ascending.
        offsets: [U + 1] int64, first event of each user.
        columns: [E] per column of the timeline kind.
    """

    users: NDArray[np.int32]
    offsets: NDArray[np.int64]
    columns: dict[str, NDArray]


def partition_of(users: NDArray[np.int32], num_partitions: int) -> NDArray[np.int64]:
    """The partition of each user: a multiplicative hash, the same on every machine."""
    mixed = (users.astype(np.uint64) * np.uint64(2_654_435_761)) >> np.uint64(16)
    return (mixed % np.uint64(num_partitions)).astype(np.int64)


def write_block(path: Path, timelines: dict[TimelineKind, Events]) -> BlockEntry:
    """Sort events by user and time, stably, and write them as one block file.

    Args:
        path: file to write; its content is on the disk when this returns.
        timelines: the events of each kind in log order; the arrays are dropped as they are
            written, so that one partition is held about twice at most.
    """
    users: dict[str, int] = {}
    events: dict[str, int] = {}
    checksum, position = 0, 0
    with path.open("wb") as file:
        for kind in TimelineKind:
            timeline = timelines.pop(kind)
            order, unique, offsets = _by_user(timeline.pop("user"), timeline["timestamp"])
            users[kind], events[kind] = len(unique), len(order)
            arrays = _arrays_of(kind, users[kind], events[kind])
            for name, (dtype, _) in arrays.items():
                array: NDArray = unique
                if name == "offsets":
                    array = offsets
                elif name != "users":
                    array = timeline.pop(name).take(order)
                content = np.ascontiguousarray(array, dtype=dtype).tobytes()
                content += bytes(-len(content) % _ALIGNMENT)
                checksum = zlib.crc32(content, checksum)
                position += file.write(content)
        sync_file(file)
    return BlockEntry(path.name, users, events, FileMark(position, checksum))


def sorted_block(timeline: Events) -> Block:
    """Events in log order, any columns beside the user, as a block in memory."""
    order, unique, offsets = _by_user(timeline["user"], timeline["timestamp"])
    columns = {name: column.take(order) for name, column in timeline.items() if name != "user"}
    return Block(unique, offsets, columns)


def events_of(block: Block, without: NDArray[np.int32] | None = None) -> Events:
    """A block's events with their user spelt out, without those of some users."""
    users = np.repeat(block.users, np.diff(block.offsets))
    events = {"user": users, **block.columns}
    if without is None:
        return events
    kept = np.isin(users, without, invert=True)
    return {name: column[kept] for name, column in events.items()}


def _by_user(
    users: NDArray[np.int32], timestamps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Positions of events sorted by user and time, the users, and where each one's events begin."""
    order = _order(users, timestamps)
    sorted_users = users[order]
    unique, first = np.unique(sorted_users, return_index=True)
    return order, unique, np.append(first, len(sorted_users))


def _order(users: NDArray[np.int32], timestamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of events sorted by user and time, stably.

    One sort of (user, time) as one number takes half the time of ``lexsort``; it fits into 63 bits
    for 2^31 users and seven weeks, or 2^24 users and 17 years.
    """
    if not len(users):
        return np.empty(0, np.int64)
    first = int(timestamps.min())
    span = int(timestamps.max()) - first + 1
    if (int(users.max()) + 1) * span >= 2**63:
        return np.lexsort((timestamps, users))
    return np.argsort(users * np.int64(span) + (timestamps - first), kind="stable")


def map_block(folder: Path, entry: BlockEntry) -> dict[TimelineKind, Block]:
    """Memory-map a block file, read-only.

    Raises:
        FileNotFoundError: the file is gone: a writer has replaced it since the manifest was read.
        DataError: the file's size is not what was written.
    """
    with (folder / entry.file).open("rb") as file:
        size = file.seek(0, 2)
        if size != entry.mark.bytes:  # a page that is not there would kill the process
            raise _damaged(folder, entry, f"has {size} bytes, {entry.mark.bytes} were written")
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    blocks = {}
    position = 0
    for kind in TimelineKind:
        mapped = {}
        for name, (dtype, length) in _arrays_of(
            kind, entry.users[kind], entry.events[kind]
        ).items():
            mapped[name] = np.frombuffer(buffer, dtype, length, position)
            position += -(-length * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        blocks[kind] = Block(mapped.pop("users"), mapped.pop("offsets"), mapped)
    return blocks


def map_checked_block(folder: Path, entry: BlockEntry) -> dict[TimelineKind, Block]:
    """:func:`map_block`, of a file whose content is as it was written: it is read whole.

    Raises:
        DataError: it is not.
    """
    if problem := entry.mark.problem(folder / entry.file):
        raise _damaged(folder, entry, problem)
    return map_block(folder, entry)


def timeline_marks(folder: Path) -> dict[Path, FileMark]:
    """The block files of a store as they were written.

    Raises:
        DataError: there is no store in ``folder``, it is damaged, or of another version.
    """
    return {folder / block.file: block.mark for block in StoreManifest.load(folder).blocks}


def _arrays_of(kind: TimelineKind, users: int, events: int) -> dict[str, tuple[np.dtype, int]]:
    """Arrays of one timeline kind in file order: name to (dtype, length)."""
    return {
        "users": (np.dtype(np.int32), users),
        "offsets": (np.dtype(np.int64), users + 1),
        **{name: (dtype, events) for name, dtype in TIMELINE_COLUMNS[kind].items()},
    }


def _damaged(folder: Path, entry: BlockEntry, finding: str) -> DataError:
    return DataError(
        f"{folder / entry.file} is damaged: it {finding}; restore the timelines from a copy or "
        f"{PREPARE_AGAIN}"
    )
