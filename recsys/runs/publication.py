"""publication.json of a run folder: what `recsys publish` reported last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.runs.files import PUBLICATION_FILE

_KIND = "report of a publication"


def write_publication(run_dir: Path, outcome: Mapping[str, Any]) -> None:
    """Replace the file in one step."""
    write_json(run_dir / PUBLICATION_FILE, _KIND, outcome)


def read_publication(run_dir: Path) -> dict[str, Any]:
    """What was reported; empty where the run was never published.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = run_dir / PUBLICATION_FILE
    mend = "remove it, or publish again with `recsys publish`."
    return read_json(path, _KIND, ArtifactError, mend) if path.is_file() else {}
