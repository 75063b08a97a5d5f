"""Building the arrays of an ``EngagementStore`` in one pass over the explicit timelines.

They lie in ``sequences/<key>/`` of the prepared data set, one ``.npy`` file per array and
``engagements.json``. The key is a hash of the configuration and of the timelines' current content,
so what was built from other timelines is never found.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.core.checksums import FileMark
from recsys.core.durable import PARTIAL, sync_file
from recsys.core.errors import DataError
from recsys.core.folders import replaced_folder
from recsys.core.json_files import read_json, write_json
from recsys.core.progress import track
from recsys.data.contract.schema import EXPLICIT_COLUMNS, LENGTHS, TimelineKind
from recsys.data.stores.dataset import TIMELINES, PreparedDataset, locked_dataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.timelines.layout import CURRENT

SEQUENCES = "sequences"
DESCRIPTION = "engagements.json"
OFFSETS = "offsets"
#: Arrays with one entry per engagement.
COLUMNS: dict[str, np.dtype] = {
    name: EXPLICIT_COLUMNS[name] for name in ("item", "action_type", "surface", "timestamp")
}

FORMAT_VERSION = 3
_KIND = "description of engagements"
_END_OF_TIME = np.iinfo(np.int64).max
_ALL_EVENTS = np.iinfo(np.int32).max
#: Explicit events that are in memory at a time, unless one user has more.
_EVENTS_PER_CHUNK = 2_000_000


@dataclass(frozen=True)
class Description:
    """``engagements.json``.

    Attributes:
        timelines: hash of the timelines' content when they were read.
        skipped: engagements left out since their item is unknown.
        repeats: every engagement of a user with an item is there, not only the first.
        lengths: number of entries by array.
        files: size and checksum of each array's file, by array.
    """

    timelines: str
    skipped: int
    repeats: bool
    lengths: dict[str, int]
    files: dict[str, FileMark]

    def save(self, folder: Path) -> None:
        """Write ``engagements.json``."""
        write_json(folder / DESCRIPTION, _KIND, asdict(self))


def ensure_engagements(
    dataset: PreparedDataset, config: SequenceConfig, known_items: NDArray[np.bool_] | None
) -> Path:
    """The folder of the arrays, built if they are not there.

    Raises:
        DataError: there is no engagement, or the data set was prepared anew since it was opened.
    """
    num_items = dataset.manifest.vocabulary_sizes["item"]
    known = np.ones(num_items, bool) if known_items is None else known_items.copy()
    if known.shape != (num_items,):
        raise ValueError(f"known_items has shape {known.shape}, expected ({num_items},)")
    known[0] = False
    codes = config.action_codes(dataset.manifest.actions)
    folder, _ = _wanted(dataset.path, config, codes, known)
    if (folder / DESCRIPTION).is_file():
        return folder
    with locked_dataset(dataset.path) as current:
        if current.manifest.fingerprint != dataset.manifest.fingerprint:
            raise DataError(
                f"{dataset.path} was prepared anew or appended to since it was opened; start again."
            )
        # the timelines of now: a user may have been deleted since the data set was opened
        folder, timelines = _wanted(dataset.path, config, codes, known)
        if not (folder / DESCRIPTION).is_file():
            folder.parent.mkdir(exist_ok=True)
            with replaced_folder(folder) as partial:
                _build(current, config, known, partial, timelines)
        _remove_outdated(folder.parent, timelines)
    return folder


def _wanted(
    dataset: Path, config: SequenceConfig, codes: list[int], known: NDArray[np.bool_]
) -> tuple[Path, str]:
    """The folder of the arrays of the timelines as they are now, and the mark of these."""
    timelines = _timelines_mark(dataset)
    wanted = [FORMAT_VERSION, timelines, codes, config.repeats, len(known)]
    mark = hashlib.sha256(json.dumps(wanted).encode() + np.packbits(known).tobytes())
    return dataset / SEQUENCES / mark.hexdigest()[:16], timelines


def read_description(folder: Path) -> Description:
    """Read ``engagements.json``.

    Raises:
        DataError: it is missing or damaged.
    """
    mend = (
        "the data set may have changed since it was opened. Start again; if that does not help, "
        f"remove {folder}."
    )
    content = read_json(folder / DESCRIPTION, _KIND, DataError, mend)
    content["files"] = {name: FileMark(**mark) for name, mark in content["files"].items()}
    return Description(**content)


def array_path(folder: Path, name: str) -> Path:
    """Where an array lies."""
    return folder / f"{name}.npy"


def engagement_marks(dataset: Path) -> dict[Path, FileMark]:
    """The arrays of all engagements of a data set as they were written.

    Raises:
        DataError: a description of them is damaged.
    """
    return {
        array_path(described.parent, name): mark
        for described in sorted((dataset / SEQUENCES).glob(f"[!.]*/{DESCRIPTION}"))
        for name, mark in read_description(described.parent).files.items()
    }


def forget_engagements(dataset: Path) -> None:
    """Remove all engagements of a data set, for example because a user was deleted from it."""
    shutil.rmtree(dataset / SEQUENCES, ignore_errors=True)


def _timelines_mark(dataset: Path) -> str:
    """A hash of the file that names the timelines' blocks and their checksums."""
    return hashlib.sha256((dataset / TIMELINES / CURRENT).read_bytes()).hexdigest()[:16]


def _build(
    dataset: PreparedDataset,
    config: SequenceConfig,
    known: NDArray[np.bool_],
    folder: Path,
    timelines: str,
) -> None:
    num_users = dataset.manifest.vocabulary_sizes["user"]
    counts = np.zeros(num_users, np.int64)
    skipped = 0
    columns_written = {name: (folder / f"{name}.bin").open("wb") for name in COLUMNS}
    try:
        for users in track(list(_user_chunks(dataset)), "Collecting engagements"):
            owner, columns, unknown = _engagements(dataset, users, config, known)
            counts += np.bincount(owner, minlength=num_users)
            skipped += unknown
            for name, file in columns_written.items():
                file.write(columns[name].tobytes())
    finally:
        for file in columns_written.values():
            file.close()
    total = int(counts.sum())
    if not total:
        raise DataError(_no_engagement(dataset, config, skipped))
    files = {}
    for name, dtype in COLUMNS.items():
        raw = folder / f"{name}.bin"
        files[name] = _save(folder, name, np.memmap(raw, dtype, mode="r", shape=(total,)))
        raw.unlink()
    files[OFFSETS] = _save(folder, OFFSETS, np.concatenate([[0], np.cumsum(counts)]))
    lengths = {OFFSETS: num_users + 1, **dict.fromkeys(COLUMNS, total)}
    Description(timelines, skipped, config.repeats, lengths, files).save(folder)


def _user_chunks(dataset: PreparedDataset) -> Iterator[NDArray[np.int32]]:
    """Known users, ascending, in chunks of a bounded number of explicit events."""
    users = dataset.timelines.users()
    users = users[users > 0]
    before = np.full(len(users), _END_OF_TIME)
    lengths = dataset.timelines.lengths(users, before, TimelineKind.EXPLICIT, _ALL_EVENTS)
    chunk = (np.cumsum(lengths) - lengths) // _EVENTS_PER_CHUNK
    yield from np.split(users, np.flatnonzero(np.diff(chunk)) + 1)


def _engagements(
    dataset: PreparedDataset,
    users: NDArray[np.int32],
    config: SequenceConfig,
    known: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], dict[str, NDArray], int]:
    """The engagements of some users: their user [E], their columns, and how many were skipped."""
    before = np.full(len(users), _END_OF_TIME)
    events = dataset.timelines.histories(users, before, TimelineKind.EXPLICIT, _ALL_EVENTS)
    owner = np.repeat(users, events[LENGTHS])
    codes = config.action_codes(dataset.manifest.actions)
    counted = np.isin(events["action_type"], codes)
    kept = counted & known[events["item"]]
    skipped = int(np.count_nonzero(counted) - np.count_nonzero(kept))
    rows = np.flatnonzero(kept)
    if not config.repeats:
        rows = rows[_is_first(owner[rows], events["item"][rows])]
    return owner[rows], {name: events[name][rows] for name in COLUMNS}, skipped


def _is_first(owner: NDArray[np.int32], item: NDArray[np.int32]) -> NDArray[np.bool_]:
    """[E] whether an event is the first of its user with its item."""
    pair = owner.astype(np.int64) << 32 | item
    first = np.zeros(len(pair), bool)
    first[np.unique(pair, return_index=True)[1]] = True
    return first


def _save(folder: Path, name: str, array: NDArray) -> FileMark:
    path = array_path(folder, name)
    with path.open("wb") as file:
        np.save(file, array)
        sync_file(file)
    return FileMark.of(path)


def _remove_outdated(folder: Path, timelines: str) -> None:
    """Remove what was built from other timelines, or half: nobody can ask for it any more."""
    for partial in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(partial, ignore_errors=True)
    for description in folder.glob(f"[!.]*/{DESCRIPTION}"):
        if read_description(description.parent).timelines != timelines:
            shutil.rmtree(description.parent, ignore_errors=True)


def _no_engagement(dataset: PreparedDataset, config: SequenceConfig, skipped: int) -> str:
    actions = ", ".join(config.actions) or "any positive explicit action"
    if skipped:
        return (
            f"{dataset.path} has {skipped} engagements ({actions}), none of them with a known "
            "item; give embeddings of the items that are in the log."
        )
    way_out = "name action types that the log has in sequences.actions"
    if not dataset.manifest.counts.get("explicit_events"):
        way_out = (
            "all of its events are impressions. If they are something that users did, prepare the "
            "log again and say what: options.default_action=click, or "
            "options.actions.<name in the log>=click"
        )
    return f"{dataset.path} has no engagement: no explicit event with {actions}; {way_out}."
