"""Items of like content in clusters, for features of what a user did with items like a candidate.

Legend: V item indices, N items with an embedding, W width, K clusters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.checksums import FileMark
from recsys.core.errors import DataError
from recsys.core.location import find_path
from recsys.data.content.item_embeddings import ItemEmbeddings, embeddings_file
from recsys.data.features.candidate_features import CandidateFeatures
from recsys.data.features.config import CandidateFeatureConfig, ContentConfig
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import CONTENT_CLUSTERS, map_arrays, save_array
from recsys.data.stores.fit_vocabulary import FitVocabulary

#: Rounds of Lloyd's algorithm.
_ROUNDS = 20
#: Items of each cluster that k-means looks at, at most.
_ITEMS_PER_CLUSTER = 256
_OF_ITEM = "of_item"


def candidate_features(
    dataset: PreparedDataset, config: CandidateFeatureConfig
) -> CandidateFeatures:
    """What computes the numbers of candidates, with clusters of content where they are asked for.

    Raises:
        ConfigError: see :class:`CandidateFeatures`.
        DataError: the embeddings of the items cannot be used.
    """
    return CandidateFeatures(dataset, config, content_clusters(dataset, config.content))


def content_clusters(dataset: PreparedDataset, config: ContentConfig) -> NDArray[np.int32] | None:
    """[V] the cluster of each item, from 1; 0 where it has no embedding. None without a path.

    The clusters are of the items of the fit period, by their embeddings alone. An item of later is
    in the one that is nearest, so that the clusters of the others stay when days are appended; one
    of after the preparation (``GrownDataset``) is in none.
    They are kept in ``content_clusters/`` of the data set. Of processes that want the same, one
    finds them and the others wait.

    Raises:
        DataError: the embeddings cannot be used, no item of the fit period has one, the data set
            was prepared anew since it was opened, or a file that was kept is damaged.
    """
    if config.path is None:
        return None
    file = embeddings_file(find_path(config.data_dir, config.path))
    first_later = FitVocabulary.of(dataset.manifest).sizes["item"]

    def build(stored: PreparedDataset, folder: Path) -> dict[str, Any]:
        items = ItemEmbeddings.load(file, stored.vocabulary("item"))
        known = np.flatnonzero(items.known)
        rows = items.matrix[known]
        number_of_fit = int(np.searchsorted(known, first_later))
        if not number_of_fit:
            raise DataError(
                f"{file} has no embedding of an item that was seen in the fit period of "
                f"{dataset.path}; give those of its items, or content.path=null."
            )
        cluster = np.zeros(len(items.known), np.int32)
        cluster[known] = 1 + nearest_centroids(rows, number_of_fit, config.clusters, config.seed)
        save_array(folder, _OF_ITEM, cluster)
        return {}

    # a file that is missing is said by what reads it
    mark = FileMark.of(file) if file.is_file() else FileMark(0, 0)
    asked = [mark.bytes, mark.crc32, config.clusters, config.seed, first_later]
    folder = CONTENT_CLUSTERS.ensure(dataset, asked, build)
    of_stored = map_arrays(folder, CONTENT_CLUSTERS.read(folder))[_OF_ITEM]
    # what came after the data set was not read when it was stored
    return np.pad(of_stored, (0, dataset.manifest.vocabulary_sizes["item"] - len(of_stored)))


def nearest_centroids(
    rows: NDArray[np.float32], fitted: int, clusters: int, seed: int
) -> NDArray[np.int64]:
    """[N] the cluster of each row [N, W] by spherical k-means, from 0 and below K.

    Args:
        rows: of length 1.
        fitted: the first so many rows, at least one, decide about the centroids.
        clusters: K at most; as many as there are such rows where they are fewer.
        seed: which of them are the centroids to begin with.
    """
    # what trains and serves without it need not load it
    import faiss

    # the order of sums, and so the centroids, would depend on the number of threads
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        clustering = faiss.Kmeans(
            rows.shape[1],
            min(clusters, fitted),
            niter=_ROUNDS,
            seed=seed % 2**31,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=_ITEMS_PER_CLUSTER,
        )
        clustering.train(np.ascontiguousarray(rows[:fitted]))
        found: NDArray[np.int64] = clustering.assign(rows)[1]
    finally:
        faiss.omp_set_num_threads(threads)
    return found
