"""JSON files of ours: each carries a checksum of what it says, and is read only where that holds.

So a reader need not ask whether a number of it may have been damaged, or whether the file was
written by something else: the checksum covers the kind of file too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.core.durable import replace_file
from recsys.core.errors import RecsysError

#: The last key of every such file.
CHECKSUM = "checksum"


def write_json(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Replace ``path`` by ``content`` in one atomic, durable step.

    Args:
        path: the file.
        kind: what it is, for example ``"manifest of an index"``; readers give the same.
        content: what JSON can hold; its order is kept.
    """
    replace_file(path, encode_json(kind, content))


def read_json(path: Path, kind: str, error: type[RecsysError], mend: str) -> dict[str, Any]:
    """What :func:`write_json` has written.

    Args:
        path: the file.
        kind: what it should be.
        error: raised where it is not.
        mend: the end of the error's sentence: what the user can do.

    Raises:
        RecsysError: ``error``: the file is missing, damaged, or another file.
    """
    try:
        return decode_json(kind, path.read_bytes())
    except FileNotFoundError as missing:
        raise error(f"{path} is missing; {mend}") from missing
    except ValueError as problem:
        raise error(f"{path} is damaged or no {kind} of this release ({problem}); {mend}") from None


def encode_json(kind: str, content: Mapping[str, Any]) -> bytes:
    """The bytes of such a file."""
    checked = {**content, CHECKSUM: _checksum(kind, content)}
    text = json.dumps(checked, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # lone surrogates, as JSON writes them


def decode_json(kind: str, data: bytes) -> dict[str, Any]:
    """The reverse of :func:`encode_json`.

    Raises:
        ValueError: the bytes are not what it has made; says why.
    """
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict) or CHECKSUM not in content:
        raise ValueError("it has no checksum")
    if content.pop(CHECKSUM) != _checksum(kind, content):
        raise ValueError("its checksum is not that of its content")
    return content


def _checksum(kind: str, content: Mapping[str, Any]) -> str:
    # Of the values, not of the text: a file that was indented anew says the same.
    text = json.dumps(content, separators=(",", ":"))
    return f"{zlib.crc32(text.encode(), zlib.crc32(kind.encode())):08x}"
