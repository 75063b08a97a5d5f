"""nodes.json of a run folder: how many items were in the nodes when the run was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.index.hierarchy.tree import Occupancy

NODES_FILE = "nodes.json"

_KIND = "list of nodes"


def write_occupancy(run_dir: Path, levels: Sequence[Occupancy]) -> None:
    """Note the nodes of every level, coarsest first."""
    write_json(run_dir / NODES_FILE, _KIND, {"levels": [asdict(one) for one in levels]})


def read_occupancy(run_dir: Path) -> list[Occupancy]:
    """What was noted; nothing of a run that was not measured.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = run_dir / NODES_FILE
    if not path.is_file():
        return []
    mend = "delete it and run `recsys evaluate` again."
    found = read_json(path, _KIND, ArtifactError, mend)
    return [Occupancy(**one) for one in found["levels"]]
