"""An index of item embeddings that grows and shrinks without being built anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import faiss
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from recsys.core.errors import ArtifactError, DataError
from recsys.data.contract.parquet import read_parquet, write_frame
from recsys.index.catalogue import SLOT, Added, StoredIndex, now
from recsys.index.faiss import gpus
from recsys.index.faiss.kinds import (
    METRIC,
    FaissManifest,
    IndexConfig,
    IndexKind,
    check_kind,
    new_index,
)
from recsys.index.faiss.search import NONE, Found, check_queries, search
from recsys.index.usable_items import POST_ID, UsableItems

#: Share of tombstones from which building an HNSW index anew is advised: its walks pass through
#: them, and its memory holds them.
REBUILD_SHARE = 0.3

#: A file of somebody else may say that its lists lie in another one, which FAISS would then open to
#: write into; ``check_kind`` refuses such an index once it is read.
_FLAGS = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR


class ItemIndex(StoredIndex):
    """Items by the cosine of their embeddings.

    Attributes:
        manifest: what it is.
    """

    manifest: FaissManifest

    def __init__(self, index: faiss.Index, items: pl.DataFrame, manifest: FaissManifest) -> None:
        super().__init__(items, manifest)
        self.index = index

    @classmethod
    def read(cls, folder: Path, manifest: FaissManifest) -> Self:
        """The index in a folder, of a manifest whose files were checked.

        Raises:
            ArtifactError: FAISS cannot read it, or it is not what the manifest says.
            FileNotFoundError: a writer has removed a file.
        """
        vectors, table = sorted(manifest.files)
        try:
            index = faiss.read_index(str(folder / vectors), _FLAGS)
        except RuntimeError as error:
            if not (folder / vectors).exists():
                raise FileNotFoundError(2, "removed by a writer", str(folder / vectors)) from error
            raise ArtifactError(
                f"{folder / vectors} cannot be read by FAISS {faiss.__version__}; build the index "
                "again with `recsys index build`."
            ) from error
        check_kind(index, manifest.config, manifest.width, folder / vectors)
        return cls(index, read_parquet(folder / table), manifest)

    def write(self, folder: Path, number: int) -> list[Path]:
        """FAISS' own file, and the table of the items."""
        vectors, table = folder / f"index.{number}.faiss", folder / f"posts.{number}.parquet"
        faiss.write_index(self.index, str(vectors))
        write_frame(table, self.items)
        return [vectors, table]

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
        moment = now()
        manifest = FaissManifest(
            width=usable.embedding.shape[1],
            metric=METRIC,
            model=model,
            config=resolved,
            posts=0,
            tombstones=0,
            next_slot=0,
            created=moment,
            changed=moment,
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
            changed=now(),
        )

    @property
    def _is_graph(self) -> bool:
        return self.manifest.config.kind == IndexKind.HNSW


def _reasons(rejected: pl.DataFrame) -> str:
    counts: Iterable[tuple[str, int]] = rejected["reason"].value_counts(sort=True).iter_rows()
    return ", ".join(f"{reason}: {count}" for reason, count in counts) or "there are none"
