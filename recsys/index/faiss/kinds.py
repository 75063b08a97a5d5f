"""Kinds of FAISS index, what each costs, and how each is made and searched.

All of them compare L2-normalised embeddings by inner product, which is the cosine.

| kind | score | bytes per item of width W | an item is removed |
|---|---|---|---|
| ``flat`` | exact | 4 W | at once |
| ``scalar_quantised`` | of the item's embedding at 8 bits per column | W | at once |
| ``ivf_pq`` | of the item's product-quantised embedding | W / 2 by default | at once |
| ``hnsw`` | exact, of items the walk comes to | 4 W + 8 × neighbours | by tombstone |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from math import gcd, isqrt
from pathlib import Path
from typing import Annotated, Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import Few, Length, OneOf, Rows, Settings, Width
from recsys.core.errors import ArtifactError, ConfigError
from recsys.index.faiss import gpus
from recsys.index.manifest import IndexManifest

METRIC = "cosine"


class IndexKind(StrEnum):
    """How the items of an index are stored and searched."""

    FLAT = "flat"
    SCALAR_QUANTISED = "scalar_quantised"
    IVF_PQ = "ivf_pq"
    HNSW = "hnsw"


AUTO = "auto"
#: Up to this many items ``auto`` searches all of them: some milliseconds per user.
LARGEST_FLAT = 100_000

#: Centroids of a product quantiser's 8-bit code; FAISS needs as many items to find them.
_CENTROIDS = 256
#: A share of the lists that is searched by default: 1 / this.
_LISTS_PER_PROBE = 32
#: Items that a list's centroid is computed from, at least, by FAISS's advice.
_ITEMS_PER_LIST = 39
#: Items drawn per centroid; more of them cost time and move centroids little.
_TRAINING_ITEMS_PER_CENTROID = 64
_SEED = 0
#: What an index of each kind consists of.
_CLASSES = {
    IndexKind.FLAT: (faiss.IndexIDMap2, faiss.IndexFlatIP),
    IndexKind.SCALAR_QUANTISED: (faiss.IndexIDMap2, faiss.IndexScalarQuantizer),
    IndexKind.IVF_PQ: (faiss.IndexIVFPQ, faiss.ArrayInvertedLists),
    IndexKind.HNSW: (faiss.IndexHNSWFlat,),
}


@dataclass(frozen=True)
class IndexConfig(Settings):
    """What kind of index to build; None and ``auto`` take a value by the number of items.

    Attributes:
        kind: ``flat``, ``scalar_quantised``, ``ivf_pq``, ``hnsw``, or ``auto``: flat up to 100,000
            items, IVF-PQ above.
        lists: IVF-PQ: lists the items are divided into (FAISS: nlist); None takes 4 √items, and
            no more than there are 39 items for.
        probes: IVF-PQ: lists searched per user (nprobe); None takes a 32nd of them, at least 8.
        code_bytes: IVF-PQ: bytes per item (M, 8 bits each), a divisor of the width; None takes
            the largest one not above half of it.
        neighbours: HNSW: links of an item in the graph (M); the lowest layer has twice as many.
        construction_candidates: HNSW: width of the search that links a new item (efConstruction).
        search_candidates: HNSW: width of a user's search (efSearch); at least k in any case.
    """

    kind: Annotated[str, OneOf((AUTO, *IndexKind))] = AUTO
    lists: Rows | None = None
    probes: Rows | None = None
    code_bytes: Width | None = None
    neighbours: Few = 16
    construction_candidates: Length = 100
    search_candidates: Length = 128

    def resolve(self, items: int, width: int) -> IndexConfig:
        """The same with every value that depends on the number of items and their width filled in.

        Raises:
            ConfigError: IVF-PQ cannot be made of so few items, or of embeddings of this width.
        """
        kind = _kind_for(items) if self.kind == AUTO else IndexKind(self.kind)
        if kind is not IndexKind.IVF_PQ:
            return replace(self, kind=kind.value)
        if items < _CENTROIDS:
            raise ConfigError(
                f"An index of kind ivf_pq learns {_CENTROIDS} centroids and needs as many items, "
                f"not {items}; build it with kind=flat."
            )
        code_bytes = self.code_bytes or _largest_divisor(width, max(width // 2, 1))
        if gcd(code_bytes, width) != code_bytes:
            raise ConfigError(
                f"code_bytes={code_bytes} does not divide the embeddings' width of {width}; "
                f"choose a divisor such as {_largest_divisor(width, code_bytes)}."
            )
        lists = min(self.lists or 4 * isqrt(items), max(items // _ITEMS_PER_LIST, 1))
        probes = min(self.probes or max(lists // _LISTS_PER_PROBE, 8), lists)
        return replace(self, kind=kind.value, lists=lists, probes=probes, code_bytes=code_bytes)


@dataclass(frozen=True, kw_only=True)
class FaissManifest(IndexManifest):
    """The description of a FAISS index, whose metric is ``cosine``: the inner product of
    L2-normalised embeddings.

    Attributes:
        config: kind and sizes, resolved.
        tombstones: removed items that HNSW still holds.
        next_slot: number that the next item gets.
    """

    file_names = (re.compile(r"index\.(\d+)\.faiss"), re.compile(r"posts\.(\d+)\.parquet"))

    config: IndexConfig
    tombstones: int
    next_slot: int

    @classmethod
    def of(cls, path: Path, content: dict[str, Any]) -> Self:
        """As of every index."""
        return replace(super().of(path, content), config=IndexConfig(**content["config"]))


def new_index(
    config: IndexConfig, embeddings: NDArray[np.float32], with_gpus: bool = False
) -> faiss.Index:
    """An empty index, trained where its kind is to be trained.

    Args:
        config: resolved.
        embeddings: [P, W] normalised; what centroids and ranges are learned from.
        with_gpus: whether IVF-PQ finds the centroids of its lists there.
    """
    width = embeddings.shape[1]
    match IndexKind(config.kind):
        case IndexKind.FLAT:
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
        case IndexKind.SCALAR_QUANTISED:
            bits = faiss.ScalarQuantizer.QT_8bit
            codes = faiss.IndexScalarQuantizer(width, bits, faiss.METRIC_INNER_PRODUCT)
            index = faiss.IndexIDMap2(codes)
        case IndexKind.IVF_PQ:
            index = _ivf_pq(config, width)
        case IndexKind.HNSW:
            index = faiss.IndexHNSWFlat(width, config.neighbours, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = config.construction_candidates
    if not index.is_trained:
        if with_gpus and isinstance(index, faiss.IndexIVF):
            gpus.train(index, embeddings)
        else:
            index.train(embeddings)
    return index


def check_kind(index: faiss.Index, config: IndexConfig, width: int, path: Path) -> None:
    """Refuse an index that is not what ``new_index`` makes.

    Args:
        index: as it was read.
        config: resolved.
        width: W of the embeddings.
        path: where it was read, for the sentence.

    Raises:
        ArtifactError: it is another class of FAISS, or its lists lie in another file.
    """
    parts = [index]
    if isinstance(index, faiss.IndexIDMap2):
        parts.append(faiss.downcast_index(index.index))
    if isinstance(index, faiss.IndexIVF):
        parts.append(faiss.downcast_InvertedLists(index.invlists))
    found, expected = tuple(type(part) for part in parts), _CLASSES[IndexKind(config.kind)]
    if found != expected or index.d != width:
        raise ArtifactError(
            f"{path} is no {config.kind} index of width {width}: it holds "
            f"{', '.join(one.__name__ for one in found)} of width {index.d}; build the index again "
            "with `recsys index build`."
        )


def search_parameters(
    config: IndexConfig, selector: faiss.IDSelector | None, wanted: int, effort: int
) -> faiss.SearchParameters:
    """How an index is searched for ``wanted`` items.

    Args:
        config: resolved.
        selector: which items may be found; None for all.
        wanted: items per user.
        effort: the breadth of an approximate search: this many times the configured one.
    """
    kind = IndexKind(config.kind)
    if kind is IndexKind.IVF_PQ:
        assert config.lists is not None and config.probes is not None
        probes = min(config.probes * effort, config.lists)
        return faiss.SearchParametersIVF(sel=selector, nprobe=probes)
    if kind is IndexKind.HNSW:
        candidates = max(config.search_candidates, wanted) * effort
        return faiss.SearchParametersHNSW(sel=selector, efSearch=candidates)
    return faiss.SearchParameters(sel=selector)


def exhaustive(
    config: IndexConfig, index: faiss.Index, selector: faiss.IDSelector | None
) -> tuple[faiss.Index, faiss.SearchParameters]:
    """What to search, and how, so that every stored item is looked at."""
    kind = IndexKind(config.kind)
    if kind is IndexKind.IVF_PQ:
        return index, faiss.SearchParametersIVF(sel=selector, nprobe=config.lists)
    if kind is IndexKind.HNSW:
        # The graph's items lie in a flat index, in the same order.
        index = faiss.downcast_index(index.storage)
    return index, faiss.SearchParameters(sel=selector)


def _kind_for(items: int) -> IndexKind:
    return IndexKind.FLAT if items <= LARGEST_FLAT else IndexKind.IVF_PQ


def _ivf_pq(config: IndexConfig, width: int) -> faiss.IndexIVFPQ:
    metric = faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(width), width, config.lists, config.code_bytes, 8, metric
    )
    index.cp.spherical = True  # centroids of unit vectors are unit vectors
    for clustering in (index.cp, index.pq.cp):
        clustering.seed = _SEED
        # A corpus of a few thousand items is what it is; FAISS would warn at every column.
        clustering.min_points_per_centroid = 1
        clustering.max_points_per_centroid = _TRAINING_ITEMS_PER_CENTROID
    return index


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)
