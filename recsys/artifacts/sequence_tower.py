"""The artifact of a sequence model's user tower: a history of items → a user embedding.

```
manifest.json           what it is, what it eats, how near int8 is to float, checksums
config.yaml             the run's resolved configuration
user_tower.pt           TorchScript, float32
user_tower_int8.pt      TorchScript, 8-bit weights
item_tower.pt           TorchScript, the embeddings of items from what is known of them
mixture.pt              TorchScript, the scores of items for a user, of a mixture of logits
post_embeddings.parquet the items' embeddings, where the model has learned them itself
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Never, cast

import torch
from torch import Tensor

from recsys.artifacts.manifest import Manifest, model_of, sha256
from recsys.artifacts.torchscript import load_tower
from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.content.item_embeddings import embeddings_file
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureKind, FeatureSide

if TYPE_CHECKING:
    from recsys.data.batches.item_features import ItemFeatures

#: A batch and the embeddings of its items [E, W] → user embeddings [B, W].
Embed = Callable[[SequenceBatch, Tensor], Tensor]


class Precision(StrEnum):
    """The two forms of an exported tower."""

    FLOAT = "float"
    INT8 = "int8"

    @classmethod
    def _missing_(cls, value: object) -> Never:
        raise ConfigError(f"precision={value} is not known; it is {' or '.join(cls)}.")


#: What scores items where a score is no product of two embeddings, and how that is called.
MIXTURE_FILE, MIXTURE = "mixture.pt", "mixture"
ITEM_TOWER_FILE = "item_tower.pt"
TOWER_FILES = {Precision.FLOAT: "user_tower.pt", Precision.INT8: "user_tower_int8.pt"}


@dataclass(frozen=True, kw_only=True)
class SequenceTowerManifest(Manifest):
    """The description of NxtPost's exported user tower.

    Attributes:
        post_embeddings: those it was trained on: ``model``, the identity of what made them, and
            ``width``, which an index it searches must have too; and ``path``.
        sequences: what counts as an engagement (``SequenceConfig``).
        max_length: newest events it looks at.
        gap_hours: how long before the request its history ends.
        features: names of the columns of ``user_categorical`` and ``user_dense``.
        agreement: of the int8 tower's embeddings with the float tower's on some histories.
    """

    system: ClassVar[str] = "nxtpost"

    post_embeddings: dict[str, Any]
    sequences: dict[str, Any]
    max_length: int
    gap_hours: float
    features: dict[str, list[str]]
    agreement: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ItemSequenceManifest(SequenceTowerManifest):
    """That of SASRec's or HSTU's, whose item embeddings lie in the artifact itself.

    An item that has none is read as the unknown one, not left out of a history. The product with
    an item's embedding is the score.
    """

    system: ClassVar[str] = "sequence"


@dataclass(frozen=True, kw_only=True)
class TwoTowerManifest(ItemSequenceManifest):
    """That of the two-tower model's; an item of which nothing is known is zeros in a history.

    Attributes:
        published: of the published user embeddings it reads: ``shape``, N and W, and
            ``delay_hours`` until one is served; empty for a model that reads none.
        similarity: ``dot``, or ``mixture``: then ``mixture.pt`` scores items.
        items: how what ``item_tower.pt`` takes is read (``ItemCorpusConfig`` as ``corpus``,
            ``HashedTextConfig`` as ``hashed_text``); empty where a pretrained encoder reads texts,
            which is not exported.
    """

    system: ClassVar[str] = "two_tower"

    published: dict[str, Any]
    similarity: str
    items: dict[str, Any]


#: By the system that a tower is of.
MANIFESTS: dict[str, type[SequenceTowerManifest]] = {
    one.system: one for one in (SequenceTowerManifest, ItemSequenceManifest, TwoTowerManifest)
}


@dataclass(frozen=True)
class SequenceTowerArtifact:
    """An exported user tower.

    Attributes:
        folder: where it lies.
        manifest: what it is.
        precision: which of its two forms ``embed`` calls.
        tower: the TorchScript module.
        mixture: scores items [n, W] for a user [W], where a score is no product.
        items: embeds items, where the model does it by what is known of them.
    """

    folder: Path
    manifest: SequenceTowerManifest
    precision: Precision
    tower: torch.jit.ScriptModule
    mixture: torch.jit.ScriptModule | None = None
    items: torch.jit.ScriptModule | None = None

    @torch.inference_mode()
    def embed(self, batch: SequenceBatch, post_embedding: Tensor) -> Tensor:
        """User embeddings [B, W], L2-normalised, of a batch with the embeddings of its items.

        As in ``Artifact.embed`` the graph is run as it was exported.
        """
        with torch.jit.optimized_execution(False):
            return embed_with(self.tower, batch, post_embedding)

    @torch.inference_mode()
    def score(self, user: Tensor, items: Tensor) -> Tensor:
        """[n] float32: what a user's embedding [W] says of items [n, W].

        Each has the same bits whatever is scored beside it.
        """
        if self.mixture is None:
            return (items * user).double().sum(dim=1).float()
        with torch.jit.optimized_execution(False):
            scores: Tensor = self.mixture(user, items)
        return scores

    @torch.inference_mode()
    def embed_items(self, items: ItemFeatures) -> Tensor:
        """Embeddings [P, W] of items, L2-normalised; zeros for one of which nothing is known.

        Raises:
            ArtifactError: the artifact has no tower of items.
        """
        if self.items is None:
            raise ArtifactError(
                f"{self.folder} has no {ITEM_TOWER_FILE}: its model reads texts by a pretrained "
                "encoder, or learned an embedding of each item; items that came after it have none."
            )
        with torch.jit.optimized_execution(False):
            embeddings: Tensor = self.items(**items.columns())
        return embeddings


def load_sequence_tower(
    path: Path | str, precision: str = Precision.FLOAT, trust: bool = False
) -> SequenceTowerArtifact:
    """Open an artifact after checking its format version, every checksum and the tower's code.

    Args:
        path: the artifact folder.
        precision: ``float`` or ``int8``.
        trust: whether to load one that is not in the user's list of trusted ones.

    Raises:
        ArtifactError: the folder is no such artifact, it is not trusted, a file of it is not what
            was exported, or the tower is none that `recsys export` writes.
        ConfigError: there is no such precision.
    """
    folder = Path(path)
    kind = MANIFESTS.get(model_of(folder), SequenceTowerManifest)
    manifest = kind.open(folder, trust)
    return open_tower(folder, manifest, Precision(precision))


def embeddings_model(path: Path | str) -> str:
    """The identity of what made item embeddings, told from their file: its SHA-256.

    A file that grew has another one; ``same_model`` says that its maker is the same.

    Raises:
        DataError: there is no such file.
    """
    file = embeddings_file(path)
    if not file.is_file():
        raise DataError(f"{file} is missing; give a file of item embeddings.")
    return sha256(file)


def user_features(dataset: DatasetManifest) -> dict[str, list[str]]:
    """Names of the columns of ``user_categorical`` and ``user_dense``."""
    return {
        f"user_{kind}": [feature.name for feature in dataset.select(FeatureSide.USER, kind)]
        for kind in FeatureKind
    }


def open_tower(
    folder: Path, manifest: SequenceTowerManifest, precision: Precision
) -> SequenceTowerArtifact:
    """The tower of a folder whose manifest was read and checked, or is being written."""
    tower = load_tower(folder / TOWER_FILES[precision], manifest)
    mixture = None
    if isinstance(manifest, TwoTowerManifest) and manifest.similarity == MIXTURE:
        mixture = load_tower(folder / MIXTURE_FILE, manifest)
    items = None
    if isinstance(manifest, TwoTowerManifest) and manifest.items:
        items = load_tower(folder / ITEM_TOWER_FILE, manifest)
    return SequenceTowerArtifact(folder, manifest, precision, tower, mixture, items)


def embed_with(tower: Callable[..., Any], batch: SequenceBatch, post_embedding: Tensor) -> Tensor:
    """User embeddings [B, W] of a batch with the embeddings of its items [E, W].

    A ``TowerBatch`` with published user embeddings is for a tower that takes them.
    """
    inputs = [
        post_embedding,
        batch.action_type,
        batch.surface,
        batch.timestamp,
        batch.lengths,
        batch.request_time,
        batch.user_categorical,
        batch.user_dense,
    ]
    published = getattr(batch, "user_embedding", None)
    if published is not None:
        inputs += [published, cast(Any, batch).has_embedding]
    return cast(Tensor, tower(*inputs))
