"""JSON files of the project with other content, as another run or release would have written it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys.core.json_files import decode_json, write_json
from recsys.distributed.checkpoint.folder import KIND

ARTIFACT_KIND = "manifest of an artifact"
INDEX_KIND = "manifest of an index"
CHECKPOINT_KIND = KIND


def rewrite(
    path: Path, kind: str, change: Mapping[str, Any] | Callable[[dict[str, Any]], object]
) -> None:
    """Write a file again, some keys replaced or the content changed in place, checksum and all."""
    content = decode_json(kind, path.read_bytes())
    if callable(change):
        change(content)
    else:
        content |= change
    write_json(path, kind, content)
