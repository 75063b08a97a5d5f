"""What a journal of live events holds, wherever it is kept: batches, and whose events they are.

Legend: n events.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError, RecsysError
from recsys.core.json_files import decode_json, encode_json
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import to_text
from recsys.data.stores.timelines.writer import EVENT_RECORD

_IDENTITY_KIND = "identity of live events"
_ITEM_KIND = "announced item"
_COLUMNS = [list(one) for one in EVENT_RECORD.descr]
_NUMBER = struct.Struct(">Q")
_CHECKSUM = struct.Struct(">I")

Damaged = Callable[[str], RecsysError]


def encoded_batch(number: int, records: NDArray) -> bytes:
    """A batch with a checksum of its number and events."""
    payload = records.tobytes()
    return _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number)))) + payload


def decoded_batch(number: int, content: bytes, damaged: Damaged) -> NDArray:
    """[n] of ``EVENT_RECORD``.

    Raises:
        RecsysError: ``damaged``, where it is not what was written.
    """
    payload = content[_CHECKSUM.size :]
    checksum = _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number))))
    if content[: _CHECKSUM.size] != checksum or len(payload) % EVENT_RECORD.itemsize:
        raise damaged(f"batch {number} is not what was written")
    return np.frombuffer(payload, EVENT_RECORD)


def joined(batches: Sequence[NDArray]) -> NDArray:
    """[n] the events of batches."""
    return np.concatenate([np.empty(0, EVENT_RECORD), *batches])


def encoded_item(item: dict[str, Any]) -> bytes:
    """An announced item."""
    return encode_json(_ITEM_KIND, {"item": item})


def decoded_item(number: int, content: bytes, damaged: Damaged) -> dict[str, Any]:
    """An announced item.

    Raises:
        RecsysError: ``damaged``, where it is not what was written.
    """
    try:
        found: dict[str, Any] = decode_json(_ITEM_KIND, content)["item"]
    except ValueError as problem:
        raise damaged(f"announced item {number}: {problem}") from None
    return found


def encoded_identity(lineage: Sequence[str], forgotten: int) -> bytes:
    """Whose events they are: generations of a data set, and since when they are all there, ms."""
    content = {"columns": _COLUMNS, "lineage": list(lineage), "forgotten": forgotten}
    return encode_json(_IDENTITY_KIND, content)


def decoded_identity(content: bytes, where: object, mend: str, damaged: Damaged) -> dict[str, Any]:
    """Whose events they are.

    Raises:
        RecsysError: ``damaged``, or they are of another release.
    """
    try:
        identity = decode_json(_IDENTITY_KIND, content)
    except ValueError as problem:
        raise damaged(str(problem)) from None
    if identity["columns"] != _COLUMNS:
        raise DataError(
            f"{where} was written by another release, whose events had the columns "
            f"{', '.join(name for name, _ in identity['columns'])}; {mend}."
        )
    return identity


def refuse_others(identity: dict[str, Any], manifest: DatasetManifest, where: object) -> bool:
    """Refuse a data set whose events they are not.

    Returns:
        Whether it is a newer generation than those that are noted.

    Raises:
        DataError: it is another data set, or lacks events that were forgotten.
    """
    ours, noted = list(manifest.lineage), identity["lineage"]
    shared = min(len(noted), len(ours))
    if noted[:shared] != ours[:shared]:
        raise DataError(
            f"{where} holds live events of another data set than {manifest.name} "
            f"(prepared as {noted[0]}, not {ours[0]}); give the folder of this data set's live "
            "events, or a new one."
        )
    last = manifest.counts["last_timestamp"]
    if identity["forgotten"] > last + 1:
        raise DataError(
            f"{where} has no events before {to_text(identity['forgotten'])} any "
            f"more, and {manifest.name} as it is opened here ends at {to_text(last)}; open its "
            "newest generation."
        )
    return len(ours) > len(noted)
