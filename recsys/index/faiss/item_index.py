"""An index of item embeddings that grows and shrinks without being built anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

import faiss
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from recsys.core.errors import ArtifactError, DataError
from recsys.data.contract.ids import as_ids
from recsys.index.catalogue import SLOT, Catalogue
from recsys.index.faiss import gpus
from recsys.index.faiss.kinds import IndexConfig, IndexKind, new_index
from recsys.index.faiss.manifest import METRIC, IndexManifest
from recsys.index.faiss.search import NONE, Found, check_queries, search
from recsys.index.usable_items import OPTIONAL_COLUMNS, POST_ID, UsableItems, last_known

#: Share of tombstones from which building an HNSW index anew is advised: its walks pass through
#: them, and its memory holds them.
REBUILD_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Added:
    """What adding items did.

    Attributes:
        added: items that were not in the index.
        replaced: items that were, whose embedding is the new one now.
        rejected: ``post_id`` and ``reason`` of rows that were left out.
    """

    added: int
    replaced: int
    rejected: pl.DataFrame


@dataclass(frozen=True)
class Removed:
    """What removing items did.

    Attributes:
        removed: items that were in the index.
        unknown: ids that were not.
    """

    removed: int
    unknown: int


class ItemIndex(Catalogue):
    """Items by the cosine of their embeddings.

    Attributes:
        manifest: what it is.
    """

    def __init__(self, index: faiss.Index, items: pl.DataFrame, manifest: IndexManifest) -> None:
        super().__init__(items)
        self.index = index
        self.manifest = manifest

    @classmethod
    def build(
        cls,
        items: pl.DataFrame,
        embedding: ArrayLike,
        model: str,
        config: IndexConfig,
        device: str = gpus.CPU,
    ) -> tuple[Self, Added]:
        """An index of items.

        Args:
            items: ``post_id`` and any of title, first_seen and last_seen, as
                :meth:`UsableItems.of` takes them.
            embedding: [P, W], normalised here; rows without a direction and all but the first row
                of an id are left out and named in the report.
            model: identity of what made the embeddings.
            config: kind and sizes.
            device: where IVF-PQ is learned and filled, one of ``gpus.DEVICES``.

        Raises:
            DataError: no item can be used.
            ConfigError: the kind cannot hold so few items or their width, or there is no such
                device.
        """
        with_gpus = gpus.uses_gpus(device)
        usable = UsableItems.of(items, embedding)
        if not len(usable.table):
            raise DataError(
                f"No item has an embedding that can be used (given: {len(items)}; "
                f"{_reasons(usable.rejected)}); give other item embeddings."
            )
        resolved = config.resolve(*usable.embedding.shape)
        now = _now()
        manifest = IndexManifest(
            width=usable.embedding.shape[1],
            metric=METRIC,
            model=model,
            config=resolved,
            posts=0,
            tombstones=0,
            next_slot=0,
            created=now,
            changed=now,
            files={},
        )
        none = usable.table.clear().insert_column(0, pl.Series(SLOT, [], pl.Int64()))
        built = cls(new_index(resolved, usable.embedding, with_gpus), none, manifest)
        built._append(usable, with_gpus)
        return built, Added(len(built), 0, usable.rejected)

    @property
    def slots_given(self) -> int:
        """S: slots are below it, those of items that were removed since among them."""
        return self.manifest.next_slot

    @property
    def tombstone_share(self) -> float:
        """Share of removed items among those an HNSW graph holds; 0 for the other kinds."""
        return self.manifest.tombstones / max(self.index.ntotal, 1)

    @property
    def rebuild_advised(self) -> bool:
        """Whether tombstones are so many that the index should be built anew."""
        return self.tombstone_share >= REBUILD_SHARE

    def check_model(self, model: str, made_by: str, way_out: str = "") -> None:
        """Refuse embeddings of another model.

        Args:
            model: identity of the embeddings that are to be compared with the items' here.
            made_by: what has that identity, for the sentence.
            way_out: what else may be done, behind the sentence.

        Raises:
            ArtifactError: the index was built for another model.
        """
        if model != self.manifest.model:
            raise ArtifactError(
                f"The index was built from the item embeddings {self.manifest.model[:12]}…, "
                f"{made_by} belongs to {model[:12]}…: their scores would mean nothing; build the "
                "index again with `recsys index build`, or take the model it was built for"
                f"{way_out}."
            )

    def add(self, items: pl.DataFrame, embedding: ArrayLike) -> Added:
        """Take in new items; an item that is there already is replaced.

        What nothing is said of (a title, a time) stays as it was.

        Args:
            items: as for :meth:`build`.
            embedding: [P, W] made by the model of the index.

        Raises:
            DataError: the embeddings have another width, or an id is text where the index has
                numbers, or a number too large for those.
        """
        usable = UsableItems.of(items, embedding)
        usable = replace(usable, table=self._with_ids_of_index(usable.table))
        width = usable.embedding.shape[1]
        if width != self.manifest.width:
            raise DataError(
                f"The new item embeddings have width {width}, those of the index "
                f"{self.manifest.width}: they come from another model; build the index again with "
                "`recsys index build`."
            )
        there = self.slots(usable.table[POST_ID])
        there = there[there != NONE]
        usable = replace(usable, table=self._with_former_columns(usable.table))
        self._drop(there)
        self._append(usable)
        return Added(len(usable.table) - len(there), len(there), usable.rejected)

    def remove(self, ids: pl.Series) -> Removed:
        """Take items out by their raw ids; none of them is found from now on.

        Raises:
            DataError: ids are of another type.
        """
        distinct = ids.unique()
        slots = self.slots(distinct)
        slots = slots[slots != NONE]
        self._drop(slots)
        return Removed(len(slots), len(distinct) - len(slots))

    def last_seen_before(self, moment: int) -> pl.Series:
        """Raw ids of items that were last seen before ``moment`` (ms); none without a time."""
        return self.items.filter(last_known() < moment)[POST_ID]

    def search(
        self,
        user_embedding: ArrayLike,
        k: int,
        *,
        exclude: Sequence[NDArray[np.int64]] | None = None,
        eligible: NDArray[np.bool_] | None = None,
    ) -> Found:
        """The k best items of every user.

        Where k is larger than what is left of the corpus, all of that comes back, and −1 behind
        it. Flat and scalar-quantised indexes look at every item; IVF-PQ and HNSW may miss some,
        but give fewer than k only where no more can be given.

        Args:
            user_embedding: [Q, W]; normalised here.
            k: items per user.
            exclude: per user slots (see ``slots``) he is not to get, for example what he has seen.
            eligible: [``slots_given``] bool, items that anybody may get; None for all.

        Raises:
            ArtifactError: embeddings of another width, with NaN, or of zeros.
            ConfigError: k is below 1.
        """
        queries = check_queries(user_embedding, self.manifest.width)
        there = np.zeros(self.slots_given, np.bool_)
        there[self.items[SLOT].to_numpy()] = True
        if eligible is not None:
            there &= eligible
        return search(self.index, self.manifest.config, there, queries, k, exclude)

    def _with_ids_of_index(self, table: pl.DataFrame) -> pl.DataFrame:
        ids = as_ids(table[POST_ID], self.items.schema[POST_ID])
        if ids.null_count():
            other = table[POST_ID].filter(ids.is_null())[0]
            raise DataError(
                f"The new items have the id {other!r}, those of the index are whole numbers "
                f"({str(ids.dtype).lower()}); give the ids as they are in the log, or build the "
                "index again with `recsys index build`."
            )
        return table.with_columns(ids)

    def _with_former_columns(self, table: pl.DataFrame) -> pl.DataFrame:
        joined = table.join(
            self.items, on=POST_ID, how="left", maintain_order="left", suffix="_former"
        )
        return joined.select(
            POST_ID,
            *(pl.coalesce(name, f"{name}_former").alias(name) for name in OPTIONAL_COLUMNS),
        )

    def _append(self, usable: UsableItems, with_gpus: bool = False) -> None:
        first = self.manifest.next_slot
        slots = np.arange(first, first + len(usable.table))
        if self._is_graph:
            self.index.add(usable.embedding)  # an HNSW index numbers its items itself, like slots
        elif with_gpus and isinstance(self.index, faiss.IndexIVF):
            gpus.add(self.index, usable.embedding, slots)
        else:
            self.index.add_with_ids(usable.embedding, slots)
        numbered = usable.table.select(pl.Series(SLOT, slots, pl.Int64()), pl.all())
        self.items = pl.concat([self.items, numbered])
        self._update_manifest(first + len(slots))

    def _drop(self, slots: NDArray[np.int64]) -> None:
        if len(slots) == 0:
            return
        if not self._is_graph:
            self.index.remove_ids(slots)
        self.items = self.items.filter(~pl.col(SLOT).is_in(pl.Series(slots).implode()))
        self._update_manifest(self.manifest.next_slot)

    def _update_manifest(self, next_slot: int) -> None:
        self.manifest = replace(
            self.manifest,
            posts=len(self.items),
            tombstones=self.index.ntotal - len(self.items),
            next_slot=next_slot,
            changed=_now(),
        )

    @property
    def _is_graph(self) -> bool:
        return self.manifest.config.kind == IndexKind.HNSW


def _reasons(rejected: pl.DataFrame) -> str:
    counts: Iterable[tuple[str, int]] = rejected["reason"].value_counts(sort=True).iter_rows()
    return ", ".join(f"{reason}: {count}" for reason, count in counts) or "there are none"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
