"""Recommending by the networks and the tree of a hierarchy, of a run or of an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy

from recsys.artifacts.hsnn_tower import HsnnArtifact
from recsys.core.errors import ConfigError
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import UNKNOWN_INDEX
from recsys.index.catalogue import Catalogue
from recsys.index.hierarchy.descent import LevelScorer
from recsys.index.hierarchy.exported import exported_scoring, open_known
from recsys.index.hierarchy.item_index import IDS, HierarchyIndex
from recsys.index.hierarchy.scoring import ItemTree, Scoring
from recsys.index.usable_items import POST_ID
from recsys.serving.pipeline import StepUsers
from recsys.serving.recommend import Recommender
from recsys.serving.stages.descent import BestBelow
from recsys.serving.stages.embed import TimelineLengths


def tree_recommender(
    catalogue: Catalogue,
    dataset: PreparedDataset,
    scoring: Scoring,
    items: ItemTree,
    task: int,
    beam: int,
) -> Recommender:
    """A recommender that descends a tree.

    Args:
        catalogue: of the items; a slot is a position in the tree.
        dataset: whose log says who has seen what.
        scoring: of the networks on that data set.
        items: in their nodes.
        task: position of the task by which nodes and items are ranked.
        beam: nodes of each level that are kept where nobody says how many.
    """

    def scorer(users: StepUsers) -> LevelScorer:
        moments = np.full(len(users), users.moment)
        return items.scorer(scoring.users(users.indices, moments), task)

    def score(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return scoring.prediction(values, task)

    return Recommender(
        catalogue,
        dataset,
        TimelineLengths(scoring.reader),
        descent=lambda k, given: BestBelow(items.tree, k, given or beam, scorer, score),
        widest=max((len(one) for one in items.tree.codes), default=0),
    )


def index_recommender(
    index: HierarchyIndex,
    networks: HsnnArtifact,
    dataset: Path | str | None,
    task: str | None,
) -> Recommender:
    """By an index of a tree and its networks, each score the one of the run, to the bit.

    Args:
        index: of the items.
        networks: of the same generation.
        dataset: the prepared data set; None for the one the items were read from.
        task: to rank by; None for the one the networks were exported with.

    Raises:
        ArtifactError: the data set is not that of the training.
        ConfigError: the networks predict no such task.
    """
    known = open_known(networks, dataset or index.manifest.dataset)
    scoring = exported_scoring(networks, known)
    names = [one["name"] for one in networks.manifest.tasks]
    wanted = task or networks.manifest.ranked_by
    if wanted not in names:
        raise ConfigError(f"hsnn predicts no task {wanted}; it is one of {', '.join(names)}.")
    indices = known.vocabulary("item").indices(index.items[POST_ID]).to_numpy().astype(np.int64)
    # the log knows its own items; of the others the index does
    is_new = indices == UNKNOWN_INDEX
    ids = {
        name: np.where(is_new, index.ids[:, column], known.ids_of_items[name][indices])
        for column, name in enumerate(IDS)
    }
    items = ItemTree(scoring, indices, from_numpy(index.embedding.copy()), index.codes, ids)
    beam = networks.manifest.beam
    return tree_recommender(index, known, scoring, items, names.index(wanted), beam)
