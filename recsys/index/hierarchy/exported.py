"""The networks and the tree of an exported HSNN on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from recsys.artifacts.hsnn_tower import HsnnArtifact, HsnnManifest, load_hsnn
from recsys.core.errors import ArtifactError
from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.contract.ids import as_ids
from recsys.data.contract.schema import FeatureKind, FeatureSide, TaskKind
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import FIRST_SEEN, RAW, UNKNOWN_INDEX
from recsys.index.catalogue import StoredIndex
from recsys.index.folder import ARTIFACT
from recsys.index.hierarchy.item_index import IDS, HierarchyIndex, PlacedItems
from recsys.index.hierarchy.new_items import GivenFeatures
from recsys.index.hierarchy.scoring import Scoring
from recsys.index.usable_items import POST_ID, TITLE


def open_known(artifact: HsnnArtifact, folder: Path | str | None = None) -> PreparedDataset:
    """The data set that an artifact was trained on, as it knows it; it may have grown since.

    Args:
        artifact: the networks.
        folder: where the data set lies; None for where it lay at the training.

    Raises:
        ArtifactError: it is not there, or another data set is.
        DataError: ``folder`` is no prepared data set, or a file of it is damaged.
    """
    trained_on = artifact.manifest.dataset
    if folder is None and not Path(trained_on["path"]).exists():
        raise ArtifactError(
            f"{artifact.folder} was trained on the prepared data set {trained_on['path']}, which "
            "is not there; if it was moved, say where it lies now: dataset=<its folder>."
        )
    dataset = open_checked(folder or trained_on["path"])
    manifest = dataset.manifest
    if trained_on["fingerprint"] not in manifest.lineage:
        raise ArtifactError(
            f"{artifact.folder} was trained on a data set with fingerprint "
            f"{trained_on['fingerprint']}, but {dataset.path} now has {manifest.fingerprint}: its "
            "indices would mean other items; give the data set of the training, or train again."
        )
    return dataset.with_fit_vocabulary(artifact.manifest.fit_vocabulary)


def exported_scoring(artifact: HsnnArtifact, dataset: PreparedDataset) -> Scoring:
    """What an artifact says of the users and items of a data set, to the bit what its run says.

    Args:
        artifact: the networks.
        dataset: of :func:`open_known`.

    Raises:
        ArtifactError: the data set has other features than that of the training.
    """
    manifest = artifact.manifest
    reader = RankingReader(
        dataset,
        gap_hours=manifest.gap_hours,
        recent_events=manifest.max_length,
        features=CandidateFeatureConfig.stored(manifest.counting),
    )
    found = {
        f"{side}_{kind}": [one.name for one in dataset.manifest.select(side, kind)]
        for side in FeatureSide
        for kind in FeatureKind
    }
    found["counted"] = list(reader.candidates.names)
    differing = [name for name, columns in found.items() if columns != manifest.features[name]]
    if differing:
        raise ArtifactError(
            f"{dataset.path} has other columns of {', '.join(differing)} than the data set that "
            f"{artifact.folder} was trained on; train again on the data set as it is."
        )
    is_binary = [one["kind"] == TaskKind.BINARY for one in manifest.tasks]
    return Scoring(artifact, dataset, reader, manifest.gap_hours, np.array(is_binary))


def load_networks(folder: Path, index: HierarchyIndex, trust: bool = False) -> HsnnArtifact:
    """The networks of an index of a tree, which lie in its folder.

    Args:
        folder: of the index.
        index: that it holds.
        trust: whether to load them if they are not in the user's list of trusted artifacts.

    Raises:
        ArtifactError: they are damaged, not trusted, or others than those the index was built by.
    """
    networks = load_hsnn(folder / ARTIFACT, trust)
    refuse_other_generation(index, networks.manifest, networks.folder)
    return networks


def check_stored(folder: Path, index: StoredIndex) -> None:
    """Refuse an index of a tree whose networks, in its folder, are damaged or others.

    Raises:
        ArtifactError: they are.
    """
    if isinstance(index, HierarchyIndex):
        place = folder / ARTIFACT
        refuse_other_generation(index, HsnnManifest.open(place, trust=True), place)


def refuse_other_generation(index: HierarchyIndex, manifest: HsnnManifest, place: Path) -> None:
    """Refuse networks that an index was not built by.

    Args:
        index: of a tree.
        manifest: of the networks.
        place: where they lie.

    Raises:
        ArtifactError: it was built by others.
    """
    if manifest.networks != index.manifest.model:
        raise ArtifactError(
            f"The tree was built by the networks {index.manifest.model[:12]}…, those of {place} "
            f"are {manifest.networks[:12]}…: they are of different generations, and its nodes "
            "would mean nothing to them; build the index again with `recsys index build` and "
            "artifact=…."
        )


@dataclass(frozen=True, eq=False)
class TreeItems:
    """Items of a data set on their way into a tree.

    Attributes:
        networks: that say where an item belongs.
        dataset: as they know it.
        scoring: of both.
    """

    networks: HsnnArtifact
    dataset: PreparedDataset
    scoring: Scoring

    @classmethod
    def of(cls, networks: HsnnArtifact, folder: Path | str | None) -> Self:
        """Of the data set in ``folder``, or that of the training.

        Raises:
            ArtifactError: as :func:`open_known` and :func:`exported_scoring`.
        """
        dataset = open_known(networks, folder)
        return cls(networks, dataset, exported_scoring(networks, dataset))

    def in_log(self, since: int | None = None) -> pl.Series:
        """Raw ids of the items of the log, or of those that it first had at a moment or later."""
        table = self.dataset.vocabulary("item").table
        return table[RAW] if since is None else table.filter(pl.col(FIRST_SEEN) >= since)[RAW]

    def placed(self, table: pl.DataFrame, given: GivenFeatures | None = None) -> PlacedItems:
        """Items in their nodes.

        Args:
            table: ``post_id`` and what is known of them.
            given: of items that the log does not have; of the others its own features count.
        """
        index = self.dataset.vocabulary("item").indices(table[POST_ID]).to_numpy()
        features = self.dataset.item_features
        categorical, dense = features.categorical[index], features.dense[index]
        ids = np.zeros((len(table), len(IDS)), np.int32)
        if given is not None:
            order = pl.DataFrame({POST_ID: as_ids(given.ids, table.schema[POST_ID])})
            known = order.with_row_index("row")
            row = table.select(POST_ID).join(known, on=POST_ID, how="left", maintain_order="left")
            is_new = row["row"].is_not_null().to_numpy() & (index == UNKNOWN_INDEX)
            place = row["row"].fill_null(0).to_numpy()[is_new]
            categorical[is_new], dense[is_new] = given.categorical[place], given.dense[place]
            ids[is_new] = given.categorical[place, 1 : 1 + len(IDS)]
            titles = pl.DataFrame({POST_ID: order[POST_ID], TITLE: given.titles})
            named = table.join(titles, on=POST_ID, how="left", maintain_order="left", suffix="_new")
            table = table.with_columns(named.select(pl.coalesce(TITLE, f"{TITLE}_new")).to_series())
        columns, numbers = self.scoring.reader.given_items(categorical, dense)
        embedding = self.scoring.embedded(columns, numbers)
        unknown = ~((columns != 0).any(dim=1) | (numbers != 0).any(dim=1))
        codes = self.scoring.codes(embedding)
        return PlacedItems(table, embedding.numpy(), codes.numpy(), ids, int(unknown.sum()))
