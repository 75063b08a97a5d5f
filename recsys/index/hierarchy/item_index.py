"""An index of items in the nodes of a tree, which grows and shrinks without being built anew.

```
manifest.json       levels, counts, identity of the networks, checksums
items.<n>.parquet   post_id, title, first_seen, last_seen (ms); author and topic of an item that the
                    log does not have, as indices; code_<level>; embedding
artifact/           the networks, as `recsys export` wrote them
```

Legend: S items, L levels, W width of an item embedding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError
from recsys.data.contract.parquet import read_parquet, write_frame
from recsys.index.catalogue import SLOT, Added, StoredIndex, now, numbered
from recsys.index.faiss.search import NONE
from recsys.index.hierarchy.tree import Tree
from recsys.index.manifest import IndexManifest
from recsys.index.usable_items import OPTIONAL_COLUMNS, POST_ID, REASON

#: By what items are found.
METRIC = "hierarchy"

#: Of an item, beside itself.
IDS = ("author", "topic")
_EMBEDDING = "embedding"


@dataclass(frozen=True, kw_only=True)
class HierarchyManifest(IndexManifest):
    """The description of an index of a tree, whose ``model`` is the SHA-256 of the networks' file.

    Attributes:
        levels: codes of each level, which divide every node of the level above.
        dataset: the prepared data set that the items were read from last.
        seen_until: ms; items that its log first had before it have been looked at.
    """

    file_names = (re.compile(r"items\.(\d+)\.parquet"),)

    levels: list[int]
    dataset: str
    seen_until: int


@dataclass(frozen=True, eq=False)
class PlacedItems:
    """Items with what the networks make of their features.

    Attributes:
        table: ``post_id``, ``title``, ``first_seen``, ``last_seen``.
        embedding: [S, W] float32, of length 1.
        codes: [S, L] int64, what their nodes are called.
        ids: [S, 2] int32, indices of author and topic of items that the log does not have; 0 of
            the others, for the log may learn more of them.
        without_features: how many have no feature that the networks know.
    """

    table: pl.DataFrame
    embedding: NDArray[np.float32]
    codes: NDArray[np.int64]
    ids: NDArray[np.int32]
    without_features: int = 0


class HierarchyIndex(StoredIndex):
    """Items in the nodes that the networks have for them.

    A slot is the position of an item in ``items``, and in the tree.

    Args:
        placed: the items.
        manifest: what it is.

    Attributes:
        manifest: what it is.
        embedding: [S, W] of the items.
        codes: [S, L] of their nodes.
        ids: [S, 2] of authors and topics, see :class:`PlacedItems`.
    """

    manifest: HierarchyManifest

    def __init__(self, placed: PlacedItems, manifest: HierarchyManifest) -> None:
        super().__init__(numbered(placed.table.select(POST_ID, *OPTIONAL_COLUMNS)), manifest)
        self.embedding = placed.embedding
        self.codes = placed.codes
        self.ids = placed.ids

    @classmethod
    def build(
        cls, placed: PlacedItems, model: str, levels: list[int], dataset: str, seen_until: int
    ) -> Self:
        """An index of items, whose ids are distinct.

        Args:
            placed: the items.
            model: identity of the networks.
            levels: codes of each level.
            dataset: where the items come from.
            seen_until: ms; see :class:`HierarchyManifest`.
        """
        moment = now()
        manifest = HierarchyManifest(
            metric=METRIC,
            model=model,
            width=placed.embedding.shape[1],
            posts=len(placed.table),
            created=moment,
            changed=moment,
            files={},
            levels=levels,
            dataset=dataset,
            seen_until=seen_until,
        )
        return cls(placed, manifest)

    @classmethod
    def read(cls, folder: Path, manifest: HierarchyManifest) -> Self:
        """The index in a folder, of a manifest whose files were checked.

        Raises:
            ArtifactError: its table is none of such an index.
        """
        path = folder / next(iter(manifest.files))
        table = read_parquet(path)
        if not _is_of(table, manifest):
            raise ArtifactError(
                f"{path} holds no items in nodes of {manifest.levels} codes; build the index again "
                "with `recsys index build`."
            )
        codes = table.select(_code_columns(len(manifest.levels)))
        placed = PlacedItems(
            table,
            table[_EMBEDDING].to_numpy().reshape(len(table), manifest.width),
            codes.to_numpy().astype(np.int64).reshape(len(table), len(manifest.levels)),
            table.select(IDS).to_numpy().astype(np.int32).reshape(len(table), len(IDS)),
        )
        return cls(placed, manifest)

    def write(self, folder: Path, number: int) -> list[Path]:
        """One table."""
        path = folder / f"items.{number}.parquet"
        columns = [
            pl.Series(name, column.astype(np.int32))
            for names, of in ((IDS, self.ids), (_code_columns(self.codes.shape[1]), self.codes))
            for name, column in zip(names, of.T, strict=True)
        ]
        embedding = pl.Series(_EMBEDDING, self.embedding, pl.Array(pl.Float32, self.manifest.width))
        write_frame(path, self.items.drop(SLOT).with_columns(*columns, embedding))
        return [path]

    @property
    def slots_given(self) -> int:
        """S."""
        return len(self.items)

    @cached_property
    def tree(self) -> Tree:
        """Of the items; made when it is first asked for, of an index that then stays as it is."""
        return Tree.of(self.codes)

    def add(self, placed: PlacedItems, seen_until: int) -> Added:
        """Take in new items; an item that is there already is replaced.

        What nothing is said of (a title, a time) stays as it was.

        Args:
            placed: the items, whose ids are distinct, by the networks of the index.
            seen_until: ms; see :class:`HierarchyManifest`.

        Raises:
            DataError: an id is text where the index has numbers, or a number too large for those.
        """
        table = self._with_former_columns(self._with_ids_of_index(placed.table))
        there = self.slots(table[POST_ID])
        there = there[there != NONE]
        self._drop(there)
        self.items = numbered(pl.concat([self.items.drop(SLOT), table]))
        self.embedding = np.concatenate([self.embedding, placed.embedding])
        self.codes = np.concatenate([self.codes, placed.codes])
        self.ids = np.concatenate([self.ids, placed.ids])
        self._update_manifest(seen_until)
        return Added(len(table) - len(there), len(there), pl.DataFrame(schema=[POST_ID, REASON]))

    def describe(self, table: pl.DataFrame) -> None:
        """Take over what a table says of the items, a row for each of them in their order."""
        self.items = numbered(self._with_former_columns(table))

    def _drop(self, slots: NDArray[np.int64]) -> None:
        kept = np.ones(len(self.items), np.bool_)
        kept[slots] = False
        self.items = numbered(self.items.drop(SLOT).filter(pl.Series(kept)))
        self.embedding, self.codes = self.embedding[kept], self.codes[kept]
        self.ids = self.ids[kept]
        self._update_manifest(self.manifest.seen_until)

    def _update_manifest(self, seen_until: int) -> None:
        self.manifest = replace(
            self.manifest, posts=len(self.items), changed=now(), seen_until=seen_until
        )


def _is_of(table: pl.DataFrame, manifest: HierarchyManifest) -> bool:
    """Whether a table has the columns of an index, and codes that its levels have."""
    names = _code_columns(len(manifest.levels))
    schema = dict(OPTIONAL_COLUMNS) | dict.fromkeys([*IDS, *names], pl.Int32())
    schema |= {_EMBEDDING: pl.Array(pl.Float32, manifest.width)}
    if POST_ID not in table.columns or not schema.items() <= dict(table.schema).items():
        return False
    return all(
        table[name].null_count() == 0 and table[name].is_between(0, codes - 1).all()
        for name, codes in zip(names, manifest.levels, strict=True)
    )


def _code_columns(levels: int) -> list[str]:
    return [f"code_{level}" for level in range(1, levels + 1)]
