"""Opening what recommending needs: an exported tower, an index, a log, and item embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.artifacts.sequence_tower import (
    ItemSequenceManifest,
    Precision,
    SequenceTowerArtifact,
    load_sequence_tower,
    user_features,
)
from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.folders import read_whole
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.content.item_embeddings import ItemEmbeddings, item_rows
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import Engagements, EngagementStore
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.folder import read_index, read_served
from recsys.serving.histories import Histories
from recsys.serving.recommend import Recommender
from recsys.serving.stages.embed import HistoryLengths, UserEmbedder
from recsys.serving.stages.search import BestScores, Products

if TYPE_CHECKING:
    from recsys.artifacts.hsnn_tower import HsnnArtifact
    from recsys.index.hierarchy.item_index import HierarchyIndex


def open_recommender(
    artifact: Path | str | None,
    index: Path | str,
    dataset: Path | str | None = None,
    embeddings: Path | str | None = None,
    precision: str = Precision.FLOAT,
    trust: bool = False,
    stores: Sequence[str] = (),
    task: str | None = None,
) -> Recommender:
    """A recommender of an index's items, by an exported user tower, or by the networks of a tree.

    Args:
        artifact: the folder that `recsys export` wrote; None for an index of a tree, which has its
            networks inside.
        index: the folder of an index of items, or of its snapshots.
        dataset: the prepared data set; None takes the one the model was trained on.
        embeddings: of the items in the users' histories; None takes those of the training.
        precision: of the user tower: ``float`` or ``int8``.
        trust: whether to load an artifact that is not in the user's list of trusted ones.
        stores: of published user embeddings, for a tower that reads them.
        task: of those that the networks of a tree predict, the one to rank by.

    Raises:
        ArtifactError: artifact or index cannot be read, the artifact is not trusted, they belong to
            different models, surfaces or user features are other ones than in training, or what the
            model was trained on has been moved.
        DataError: the embeddings cannot be read or have another width, or the index is of another
            log.
        ConfigError: there is no such precision; or stores are given and not read, or read and not
            given; or a setting is of the other kind of index.
    """
    opened = read_served(Path(index), partial(_with_networks, artifact=artifact, trust=trust))
    if isinstance(opened, tuple):
        if embeddings is not None or stores or precision != Precision.FLOAT:
            raise ConfigError(
                f"{index} is a tree, whose networks read items by their features and have one "
                "precision; leave embeddings=, stores= and precision= out."
            )
        # what only models with a tree need
        from recsys.serving.tree import index_recommender

        return index_recommender(*opened, dataset, task)
    items = opened
    if artifact is None or task is not None:
        raise ConfigError(
            f"{index} is a FAISS index of item embeddings: give artifact=…, what `recsys export` "
            "wrote of its model, which has no tasks."
        )
    tower = read_whole(Path(artifact), lambda: load_sequence_tower(artifact, precision, trust))
    log = _dataset(tower, dataset)
    items.check_model(tower.manifest.post_embeddings["model"], f"the artifact {artifact}")
    content, histories = _content(tower, log, embeddings, stores)
    embedder = UserEmbedder(tower.embed, histories, content)
    if tower.mixture is not None:
        from recsys.serving.stages.scored import ArtifactScores

        scores = ArtifactScores(tower, histories, content, items, log.vocabulary("item"))
        return Recommender(
            items,
            log,
            HistoryLengths(histories),
            lambda k: BestScores(items, k, scores),
            histories,
            content,
        )
    source = None
    if not tower.manifest.output["normalised"]:
        length = float(np.linalg.norm(content.astype(np.float64), axis=1).max())
        source = partial(Products, items, length=length)
    return Recommender(items, log, embedder, source, histories, content)


def _with_networks(
    folder: Path, artifact: Path | str | None, trust: bool
) -> ItemIndex | tuple[HierarchyIndex, HsnnArtifact]:
    """The index in a folder, one of a tree with its networks, which may be given too."""
    index = read_index(folder)
    if isinstance(index, ItemIndex):
        return index
    # what only models with a tree need
    from recsys.artifacts.hsnn_tower import HsnnManifest
    from recsys.index.hierarchy.exported import load_networks, refuse_other_generation
    from recsys.index.hierarchy.item_index import HierarchyIndex

    assert isinstance(index, HierarchyIndex)
    if artifact is not None:
        beside = HsnnManifest.open(Path(artifact), trust)
        refuse_other_generation(index, beside, Path(artifact))
    return index, load_networks(folder, index, trust)


def _dataset(artifact: SequenceTowerArtifact, folder: Path | str | None) -> PreparedDataset:
    """The data set in ``folder``, or that of the training where it still lies there."""
    trained_on = Path(artifact.manifest.dataset["path"])
    if folder is None and not trained_on.exists():
        raise ArtifactError(
            f"{artifact.folder} was trained on the prepared data set {trained_on}, which is not "
            "there; if it was moved, say where it lies now: dataset=<its folder>."
        )
    return open_checked(folder or trained_on)


def _content(
    artifact: SequenceTowerArtifact,
    dataset: PreparedDataset,
    embeddings: Path | str | None,
    stores: Sequence[str],
) -> tuple[NDArray[np.float32], Histories]:
    """Embeddings [V, W] of the items that the tower reads, and the histories it reads them in."""
    _check_codes(artifact, dataset)
    content, known = item_content(artifact, dataset, embeddings)
    sequences = counted_sequences(artifact, dataset)
    engagements = EngagementStore.open(dataset, sequences, known)
    reader = history_reader(artifact, dataset, engagements, stores)
    return content, Histories(reader, gap_ms(artifact), sequences, known)


def item_content(
    artifact: SequenceTowerArtifact,
    dataset: PreparedDataset,
    embeddings: Path | str | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Embeddings [V, W] of the items that a tower reads, and which it has; None reads all.

    Args:
        artifact: the tower.
        dataset: whose items.
        embeddings: of them; None takes those of the training.

    Raises:
        ArtifactError: those of the training have been moved.
        DataError: the embeddings cannot be read or have another width.
    """
    manifest, vocabulary = artifact.manifest, dataset.vocabulary("item")
    width = manifest.post_embeddings["width"]
    if isinstance(manifest, ItemSequenceManifest):
        path = embeddings or artifact.folder / manifest.post_embeddings["path"]
        return item_rows(Path(path), vocabulary, width), None
    path = embeddings or manifest.post_embeddings["path"]
    if embeddings is None and not Path(path).exists():
        raise ArtifactError(
            f"{artifact.folder} was trained with the item embeddings {path}, which are not there; "
            "if they were moved, say where they lie now: embeddings=<their file or folder>."
        )
    items = ItemEmbeddings.load(path, vocabulary, width)
    return items.matrix, items.known


def history_reader(
    artifact: SequenceTowerArtifact,
    dataset: PreparedDataset,
    engagements: Engagements,
    stores: Sequence[str],
) -> SequenceReader:
    """Reads histories, and published user embeddings where the tower does.

    Raises:
        ArtifactError: the stores hold other embeddings than the tower reads.
        ConfigError: stores are given and not read, or read and not given.
    """
    length = artifact.manifest.max_length
    said = getattr(artifact.manifest, "published", None)
    if not said:
        if stores:
            raise ConfigError(
                f"{artifact.folder} reads no published user embeddings; leave stores= out."
            )
        return SequenceReader(dataset, engagements, length)
    if not stores:
        raise ConfigError(
            f"{artifact.folder} reads published user embeddings; name where they are served: "
            "stores=[<folder or address that recsys publish wrote>]."
        )
    # what most artifacts do without
    from recsys.data.batches.sequences.towers import TowerReader
    from recsys.embeddings.point_in_time import PointInTimeEmbeddings

    embeddings = PointInTimeEmbeddings(dataset, stores, said["delay_hours"])
    if list(embeddings.shape) != said["shape"]:
        (vectors, width), (own, own_width) = embeddings.shape, said["shape"]
        raise ArtifactError(
            f"stores= hold {vectors} vectors of width {width} for a user, {artifact.folder} reads "
            f"{own} of width {own_width}; name publications of the model it was trained with."
        )
    return TowerReader(dataset, engagements, length, embeddings)


def gap_ms(artifact: SequenceTowerArtifact) -> int:
    """How long before a request the histories of a tower end."""
    return round(artifact.manifest.gap_hours * MILLISECONDS_PER_HOUR)


def counted_sequences(artifact: SequenceTowerArtifact, dataset: PreparedDataset) -> SequenceConfig:
    """What counts as an engagement, among the actions that the log had in training."""
    manifest = artifact.manifest
    known = manifest.codes["action_type"]
    sequences = SequenceConfig(**manifest.sequences)
    actions = [name for name in dataset.manifest.actions.positive if name in known]
    return replace(sequences, actions=sequences.actions or actions)


def _check_codes(artifact: SequenceTowerArtifact, dataset: PreparedDataset) -> None:
    """The data set of the training may have grown: new codes come behind the old ones."""
    manifest = artifact.manifest
    surfaces, actions = manifest.codes["surface"], manifest.codes["action_type"]
    differing = []
    if list(dataset.manifest.surfaces[: len(surfaces)]) != surfaces:
        differing.append("surfaces")
    if list(dataset.manifest.action_types[: len(actions)]) != actions:
        differing.append("actions")
    if user_features(dataset.manifest) != manifest.features:
        differing.append("user features")
    if differing:
        raise ArtifactError(
            f"{dataset.path} has other {' and '.join(differing)} than the data set that "
            f"{artifact.folder} was trained on; recommend with that one, or train on this one."
        )
