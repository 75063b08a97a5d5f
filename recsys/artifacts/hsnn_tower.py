"""An exported HSNN: its networks with the tree of the items inside, which cannot be parted.

```
manifest.json       what it is, what has to be handed in, checksums
config.yaml         the run's resolved configuration
hsnn.pt             TorchScript, float32: tables, networks, nodes, and the embeddings of the items
vocabulary/         raw id → index; that of items has all that are in the tree
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from recsys.artifacts import ranker_tower
from recsys.artifacts.manifest import Manifest
from recsys.artifacts.torchscript import load_tower
from recsys.data.batches.requests import RankingBatch

HSNN_FILE = "hsnn.pt"

#: What the user side of a request is made of: as a ranker's, without published embeddings.
USER_INPUTS = {
    name: kind for name, kind in ranker_tower.USER_INPUTS.items() if "published" not in name
}
#: What candidates are made of, beside what ``descend`` says of them.
CANDIDATE_INPUTS = {
    "counted": "float32",
    "context_categorical": "int64",
    "context_dense": "float32",
}


@dataclass(frozen=True, kw_only=True)
class HsnnManifest(Manifest):
    """The description of an exported HSNN.

    Attributes:
        tasks: names and kinds, in the order of the scores.
        ranked_by: the task by which nodes are ranked.
        beam: nodes of each level that are usually kept.
        features: names of the columns of what is handed in, in their order; categorical ones are
            indices of the data set, of which 0 is the unknown one.
        fit_vocabulary: per id column the number of indices the model was trained with; larger
            ones are given to it as 0.
        gap_hours: how long before the request everything that is handed in ends.
        max_length: newest events of both timelines together that it looks at.
        counting: what ``counted`` was counted with (``CandidateFeatureConfig``).
        levels: of each level its codes, and how many nodes have an item.
        first_item: index of the item at position 0 of the tree; the others follow.
        items: S, of the tree.
        agreement: of its scores with the trained model's on some descents.
    """

    system = "hsnn"

    tasks: list[dict[str, str]]
    ranked_by: str
    beam: int
    features: dict[str, list[str]]
    fit_vocabulary: dict[str, int]
    gap_hours: float
    max_length: int
    counting: dict[str, Any]
    levels: list[dict[str, int]]
    first_item: int
    items: int
    agreement: dict[str, float]

    @property
    def networks(self) -> str:
        """The identity of the networks: the SHA-256 of their file."""
        return str(self.files[HSNN_FILE]["sha256"])


@dataclass(frozen=True)
class HsnnArtifact:
    """An exported HSNN.

    Attributes:
        folder: where it lies.
        manifest: what it is, and what it takes.
        tower: the TorchScript module.
    """

    folder: Path
    manifest: HsnnManifest
    tower: torch.jit.ScriptModule

    def encode_user(self, **inputs: Tensor) -> list[Tensor]:
        """What the levels need of a request's user; inputs are those of ``USER_INPUTS``."""
        return cast(list[Tensor], self._run("encode_user", **inputs))

    def descend(
        self, user: list[Tensor], beam: int, k: int, eligible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Positions [C] of the items below a user's best nodes, and what to score them with.

        Args:
            user: of :meth:`encode_user`.
            beam: nodes of each level that are kept, and more until they hold ``k`` items.
            k: items that are to be found.
            eligible: [S] bool, which items the user may get; None for all.
        """
        if eligible is None:
            eligible = torch.ones(self.manifest.items, dtype=torch.bool)
        return cast(tuple[Tensor, Tensor], self._run("descend", user, beam, k, eligible))

    def score(
        self, user: list[Tensor], item: Tensor, above: Tensor, **candidates: Tensor
    ) -> Tensor:
        """[C, K] float64 predictions; candidates are those of ``CANDIDATE_INPUTS``, each [C, …]."""
        return cast(Tensor, self._run("score", user, item, above, **candidates))

    def users(self, batch: RankingBatch) -> list[Tensor]:
        """Of every level, the items' last, [B, n_u, D] of the requests of a batch."""
        inputs = [getattr(batch, name) for name in USER_INPUTS]
        return cast(list[Tensor], self._run("encode_users", *inputs))

    def embed(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """[n, W] embeddings of items by their features, [n, F_i] int64 and [n, D_i] float32."""
        return cast(Tensor, self._run("embed", categorical, dense))

    def codes(self, embedding: Tensor) -> Tensor:
        """[n, L] int64 the codes of the nodes of items [n, W]."""
        return cast(Tensor, self._run("codes", embedding))

    def centres(self, codes: Tensor) -> Tensor:
        """[n, W] embeddings of nodes [n, l] of a level."""
        return cast(Tensor, self._run("centres", codes))

    def of_nodes(self, level: int, user: Tensor, node: Tensor) -> Tensor:
        """[n, K] of a level for users [n, n_u, D] and embeddings [n, W] of nodes."""
        return cast(Tensor, self._run("of_nodes", level, user, node))

    def of_items(
        self, user: Tensor, item: Tensor, counted: Tensor, categorical: Tensor, dense: Tensor
    ) -> Tensor:
        """[n, K] of the items' network, see ``Networks`` of recsys/index/hierarchy/scoring.py."""
        return cast(Tensor, self._run("of_items", user, item, counted, categorical, dense))

    def combined(self, scores: Tensor) -> Tensor:
        """[n, l, K] of some levels → [n, K] float64, what the last says with those above it."""
        return cast(Tensor, self._run("combined", scores))

    def node_of(self, item_categorical: Tensor, item_dense: Tensor) -> Tensor:
        """[n, L] the codes of the nodes of items by their features, of new ones too."""
        return self.codes(self.embed(item_categorical, item_dense))

    @torch.inference_mode()
    def _run(self, name: str, *inputs: Any, **named: Tensor) -> Any:
        """What a method of the tower says; its graph is run as it was exported."""
        with torch.jit.optimized_execution(False):
            return getattr(self.tower, name)(*inputs, **named)


def user_inputs(batch: RankingBatch, request: int) -> dict[str, Tensor]:
    """What ``encode_user`` takes of a request of a batch."""
    inputs = ranker_tower.user_inputs(batch, request)
    return {name: cast(Tensor, inputs[name]) for name in USER_INPUTS}


def load_hsnn(path: Path | str, trust: bool = False) -> HsnnArtifact:
    """Open an artifact after checking its format version, every checksum and the tower's code.

    Args:
        path: the artifact folder.
        trust: whether to load one that is not in the user's list of trusted ones.

    Raises:
        ArtifactError: the folder is no such artifact, it is not trusted, a file of it is not what
            was exported, or the tower is none that `recsys export` writes.
    """
    folder = Path(path)
    return open_hsnn(folder, HsnnManifest.open(folder, trust))


def open_hsnn(folder: Path, manifest: HsnnManifest) -> HsnnArtifact:
    """The HSNN of a folder whose manifest was read and checked, or is being written."""
    return HsnnArtifact(folder, manifest, load_tower(folder / HSNN_FILE, manifest))
