"""What a prepared data set is told from others by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from recsys.data.contract.input_files import InputFile


def fingerprint(configuration: dict[str, Any], files: Sequence[InputFile]) -> str:
    """A hash of the configuration and of every input file's name and content."""
    contents = [(file.name, file.digest) for file in files]
    content = json.dumps([configuration, contents], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
