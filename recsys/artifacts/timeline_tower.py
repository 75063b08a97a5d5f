"""An exported tower over a user's two timelines, and opening it again (DV365).

```
manifest.json   what it is, what it takes, checksums
config.yaml     the run's resolved configuration
user_tower.pt   TorchScript, with the quantised tables inside
encoder.pt2     the encoder by ``torch.export``
vocabulary/     raw id → index
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from recsys.artifacts.manifest import Manifest
from recsys.artifacts.torchscript import load_tower
from recsys.core.installation import require_supported_set
from recsys.data.batches.requests import JaggedTimeline
from recsys.data.contract.schema import LENGTHS, TIMELINE_COLUMNS

TOWER_FILE = "user_tower.pt"
ENCODER_FILE = "encoder.pt2"
#: Vocabularies a caller of the tower needs; user ids are not among its inputs.
TOWER_IDS = ("item", "author", "topic")


@dataclass(frozen=True, kw_only=True)
class TimelineTowerManifest(Manifest):
    """The description of DV365's exported user tower.

    Attributes:
        fit_vocabulary: per id column the number of indices the model was trained with; larger
            ones are given to it as 0.
        gap_hours: time between the last event the tower may see and the request.
        max_events: newest events it is given per timeline.
        age_edges: event ages (ms) at which an event leaves a slice's window.
        table_bits: bits per weight of the tables.
    """

    system = "dv365"

    fit_vocabulary: dict[str, int]
    gap_hours: float
    max_events: int
    age_edges: tuple[int, ...]
    table_bits: int

    def __post_init__(self) -> None:
        """JSON knows no tuples."""
        object.__setattr__(self, "age_edges", tuple(self.age_edges))


@dataclass(frozen=True)
class TimelineTowerArtifact:
    """An exported user tower.

    Attributes:
        folder: where it lies.
        manifest: what it is.
        tower: the TorchScript module; ``embed`` calls it.
    """

    folder: Path
    manifest: TimelineTowerManifest
    tower: torch.jit.ScriptModule

    @property
    def identity(self) -> str:
        """SHA-256 of the tower: two artifacts with the same one give the same embeddings."""
        return str(self.manifest.files[TOWER_FILE]["sha256"])

    @torch.inference_mode()
    def embed(
        self, explicit: JaggedTimeline, implicit: JaggedTimeline, request_time: Tensor
    ) -> Tensor:
        """[B, N_out, D] float32.

        The graph is run as it was exported: TorchScript's optimiser would take a second to
        specialise it, and later calls might add in another order than the first ones.
        """
        with torch.jit.optimized_execution(False):
            return cast(Tensor, self.tower(explicit, implicit, request_time))


def load_timeline_tower(path: Path | str, trust: bool = False) -> TimelineTowerArtifact:
    """Open an artifact after checking its format version, every checksum and the tower's code.

    Args:
        path: the artifact folder.
        trust: whether to load one that is not in the user's list of trusted ones.

    Raises:
        ArtifactError: the folder is no artifact, it is not trusted, a file of it is not what was
            exported, or the tower is none that `recsys export` writes.
    """
    require_supported_set()
    import fbgemm_gpu  # noqa: F401  (its operators read the quantised tables)

    folder = Path(path)
    manifest = TimelineTowerManifest.open(folder, trust)
    return TimelineTowerArtifact(folder, manifest, load_tower(folder / TOWER_FILE, manifest))


def describe_inputs() -> dict[str, Any]:
    """Dtypes of what the exported tower takes."""
    described: dict[str, Any] = {
        str(kind): {
            LENGTHS: "int64",
            **{name: str(dtype) for name, dtype in columns.items()},
        }
        for kind, columns in TIMELINE_COLUMNS.items()
    }
    return described | {"request_time": "int64"}
