"""An exported ranker: the user side of a request once, then its candidates.

```
manifest.json       what it is, what has to be handed in, checksums
config.yaml         the run's resolved configuration
ranker.pt           TorchScript, float32, with its tables and the calibration
vocabulary/         raw id → index
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
from recsys.core.errors import ArtifactError
from recsys.data.batches.requests import RankingBatch

RANKER_FILE = "ranker.pt"

#: What the user side of a request is made of.
USER_INPUTS = {
    "request_time": "int64",
    "user_categorical": "int64",
    "user_dense": "float32",
    "recent_ids": "int64",
    "recent_action": "int64",
    "recent_time": "int64",
    "recent_dwell": "float32",
    "published": "float32",
    "has_published": "bool",
}
#: What the candidates of a request are made of.
CANDIDATE_INPUTS = {"item_categorical": "int64", "item_dense": "float32", "counted": "float32"}


@dataclass(frozen=True, kw_only=True)
class RankerManifest(Manifest):
    """The description of an exported ranker.

    Attributes:
        tasks: names and kinds, in the order of the scores.
        features: names of the columns of ``user_categorical``, ``user_dense``,
            ``item_categorical``, ``item_dense``, ``recent_ids`` and ``counted``, in their order;
            categorical ones are indices of the data set, of which 0 is the unknown one.
        fit_vocabulary: per id column the number of indices the model was trained with; larger
            ones are given to it as 0.
        gap_hours: how long before the request everything that is handed in ends.
        max_length: newest events of both timelines together that it looks at.
        counting: what ``counted`` was counted with (``CandidateFeatureConfig``).
        published: N and W of the published user embedding it reads; empty for one that reads none.
        calibration: method, rows, curve of each task, and why a task has none; empty for none.
        agreement: of its scores with the trained model's on some requests of the choose split.
    """

    system = "ranker"

    tasks: list[dict[str, str]]
    features: dict[str, list[str]]
    fit_vocabulary: dict[str, int]
    gap_hours: float
    max_length: int
    counting: dict[str, Any]
    published: list[int]
    calibration: dict[str, Any]
    agreement: dict[str, float]


@dataclass(frozen=True)
class RankerArtifact:
    """An exported ranker.

    Attributes:
        folder: where it lies.
        manifest: what it is, and what it takes.
        tower: the TorchScript module.
    """

    folder: Path
    manifest: RankerManifest
    tower: torch.jit.ScriptModule

    @torch.inference_mode()
    def encode_user(self, **inputs: Tensor | bool) -> dict[str, Tensor]:
        """What the candidates of a request need of its user.

        Args:
            inputs: those of ``USER_INPUTS``; shapes are in the manifest.

        Raises:
            ArtifactError: an input is missing, not known, or of another width than the model's.
        """
        _check_names(inputs, USER_INPUTS)
        self._check_widths(inputs)
        with torch.jit.optimized_execution(False):
            return cast(dict[str, Tensor], self.tower.encode_user(**inputs))

    @torch.inference_mode()
    def score(self, state: dict[str, Tensor], **candidates: Tensor) -> Tensor:
        """[C, K] float64: calibrated probabilities of binary tasks, numbers of the others.

        The graph is run as it was exported, so a candidate's scores have the same bits at every
        call and whatever is beside it.

        Args:
            state: of :meth:`encode_user`.
            candidates: those of ``CANDIDATE_INPUTS``, each [C, …].

        Raises:
            ArtifactError: an input is missing, not known, or of another width than the model's.
        """
        _check_names(candidates, CANDIDATE_INPUTS)
        self._check_widths(candidates)
        with torch.jit.optimized_execution(False):
            return cast(Tensor, self.tower.score(state, **candidates))

    def score_batch(self, batch: RankingBatch) -> Tensor:
        """[R, K] of the requests of a batch as ``RankingReader`` makes it, one after the other."""
        found = []
        first = 0
        for request, number in enumerate(batch.rows_per_request.tolist()):
            rows = slice(first, first + number)
            found.append(
                self.score(
                    self.encode_user(**user_inputs(batch, request)), **candidate_inputs(batch, rows)
                )
            )
            first += number
        return torch.cat(found)

    def _check_widths(self, inputs: dict[str, Any]) -> None:
        for name, columns in self.manifest.features.items():
            if name in inputs and inputs[name].shape[-1] != len(columns):
                raise ArtifactError(
                    f"{name} has {inputs[name].shape[-1]} columns, but {self.folder} takes "
                    f"{len(columns)}: {', '.join(columns)}."
                )


def user_inputs(batch: RankingBatch, request: int) -> dict[str, Tensor | bool]:
    """What ``encode_user`` takes of a request of a batch."""
    first = batch.recent_time.shape[1] - int(batch.recent_lengths[request])
    recent = ("recent_ids", "recent_action", "recent_time", "recent_dwell")
    return {
        "request_time": batch.request_time[request],
        "user_categorical": batch.user_categorical[request],
        "user_dense": batch.user_dense[request],
        **{name: getattr(batch, name)[request, first:] for name in recent},
        "published": batch.user_embedding[request],
        "has_published": bool(batch.has_embedding[request]),
    }


def candidate_inputs(batch: RankingBatch, rows: slice) -> dict[str, Tensor]:
    """What ``score`` takes of some rows of a batch."""
    return {name: getattr(batch, name)[rows] for name in CANDIDATE_INPUTS}


def load_ranker(path: Path | str, trust: bool = False) -> RankerArtifact:
    """Open an artifact after checking its format version, every checksum and the tower's code.

    Args:
        path: the artifact folder.
        trust: whether to load one that is not in the user's list of trusted ones.

    Raises:
        ArtifactError: the folder is no such artifact, it is not trusted, a file of it is not what
            was exported, or the tower is none that `recsys export` writes.
    """
    folder = Path(path)
    manifest = RankerManifest.open(folder, trust)
    return open_ranker(folder, manifest)


def open_ranker(folder: Path, manifest: RankerManifest) -> RankerArtifact:
    """The ranker of a folder whose manifest was read and checked, or is being written."""
    return RankerArtifact(folder, manifest, load_tower(folder / RANKER_FILE, manifest))


def _check_names(given: dict[str, Any], taken: dict[str, str]) -> None:
    if set(given) != set(taken):
        different = ", ".join(sorted(set(given) ^ set(taken)))
        raise ArtifactError(
            f"The ranker takes {', '.join(taken)}; missing or not known: {different}."
        )
