"""An index of post embeddings that grows and shrinks without being built anew."""

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
from recsys.index.faiss.kinds import IndexConfig, IndexKind, new_index
from recsys.index.faiss.manifest import METRIC, IndexManifest
from recsys.index.faiss.search import NONE, Found, check_queries, search
from recsys.index.usable_items import FIRST_SEEN, LAST_SEEN, OPTIONAL_COLUMNS, POST_ID, UsablePosts

#: Number of a post in the index: given once, never again, kept until the index is built anew.
SLOT = "slot"
#: Share of tombstones from which building an HNSW index anew is advised: its walks pass through
#: them, and its memory holds them.
REBUILD_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Added:
    """What adding posts did.

    Attributes:
        added: posts that were not in the index.
        replaced: posts that were, whose embedding is the new one now.
        rejected: ``post_id`` and ``reason`` of rows that were left out.
    """

    added: int
    replaced: int
    rejected: pl.DataFrame


@dataclass(frozen=True)
class Removed:
    """What removing posts did.

    Attributes:
        removed: posts that were in the index.
        unknown: ids that were not.
    """

    removed: int
    unknown: int


class PostIndex:
    """Posts by the cosine of their embeddings.

    Attributes:
        manifest: what it is.
        posts: ``slot``, ``post_id``, ``title``, ``first_seen``, ``last_seen`` of the posts that can
            be found, by ascending slot.
    """

    def __init__(self, index: faiss.Index, posts: pl.DataFrame, manifest: IndexManifest) -> None:
        self.index = index
        self.posts = posts
        self.manifest = manifest

    @classmethod
    def build(
        cls, posts: pl.DataFrame, embedding: ArrayLike, model: str, config: IndexConfig
    ) -> tuple[Self, Added]:
        """An index of posts.

        Args:
            posts: ``post_id`` and any of title, first_seen and last_seen, as
                :meth:`UsablePosts.of` takes them.
            embedding: [P, W], normalised here; rows without a direction and all but the first row
                of an id are left out and named in the report.
            model: identity of what made the embeddings.
            config: kind and sizes.

        Raises:
            DataError: no post can be used.
            ConfigError: the kind cannot hold so few posts or their width.
        """
        usable = UsablePosts.of(posts, embedding)
        if not len(usable.table):
            raise DataError(
                f"No post has an embedding that can be used (given: {len(posts)}; "
                f"{_reasons(usable.rejected)}); give other post embeddings."
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
        built = cls(new_index(resolved, usable.embedding), none, manifest)
        built._append(usable)
        return built, Added(len(built), 0, usable.rejected)

    def __len__(self) -> int:
        return len(self.posts)

    @property
    def tombstone_share(self) -> float:
        """Share of removed posts among those an HNSW graph holds; 0 for the other kinds."""
        return self.manifest.tombstones / max(self.index.ntotal, 1)

    @property
    def rebuild_advised(self) -> bool:
        """Whether tombstones are so many that the index should be built anew."""
        return self.tombstone_share >= REBUILD_SHARE

    def check_model(self, model: str, made_by: str) -> None:
        """Refuse embeddings of another model.

        Args:
            model: identity of the embeddings that are to be compared with the posts' here.
            made_by: what has that identity, for the sentence.

        Raises:
            ArtifactError: the index was built for another model.
        """
        if model != self.manifest.model:
            raise ArtifactError(
                f"The index was built from the post embeddings {self.manifest.model[:12]}…, "
                f"{made_by} belongs to {model[:12]}…: their scores would mean nothing; build the "
                "index again with `recsys index build`, or take the model it was built for."
            )

    def add(self, posts: pl.DataFrame, embedding: ArrayLike) -> Added:
        """Take in new posts; a post that is there already is replaced.

        What nothing is said of (a title, a time) stays as it was.

        Args:
            posts: as for :meth:`build`.
            embedding: [P, W] made by the model of the index.

        Raises:
            DataError: the embeddings have another width, or ids are of another type.
        """
        usable = UsablePosts.of(posts, embedding)
        width = usable.embedding.shape[1]
        if width != self.manifest.width:
            raise DataError(
                f"The new post embeddings have width {width}, those of the index "
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
        """Take posts out by their raw ids; none of them is found from now on.

        Raises:
            DataError: ids are of another type.
        """
        distinct = ids.unique()
        slots = self.slots(distinct)
        slots = slots[slots != NONE]
        self._drop(slots)
        return Removed(len(slots), len(distinct) - len(slots))

    def last_seen_before(self, moment: int) -> pl.Series:
        """Raw ids of posts that were last seen before ``moment`` (ms); none without a time."""
        return self.posts.filter(_last_seen() < moment)[POST_ID]

    def slots(self, ids: pl.Series) -> NDArray[np.int64]:
        """[n] the slot of each raw id; −1 where the index has none.

        Raises:
            DataError: ids are text and those of the index numbers, or the other way round.
        """
        expected = self.posts.schema[POST_ID]
        if (ids.dtype == pl.String) != (expected == pl.String):
            raise DataError(
                f"Posts are named by {ids.dtype} ids, those of the index are {expected}; give the "
                "ids as they are in the log."
            )
        named = pl.DataFrame({POST_ID: ids.cast(expected)})
        joined = named.join(
            self.posts.select(POST_ID, SLOT), on=POST_ID, how="left", maintain_order="left"
        )
        slots: NDArray[np.int64] = joined[SLOT].fill_null(NONE).to_numpy()
        return slots

    def at(self, slots: NDArray[np.int64]) -> pl.DataFrame:
        """The rows of ``posts`` at some slots, all of them in the index."""
        return self.posts[np.searchsorted(self.posts[SLOT].to_numpy(), slots)]

    def search(
        self,
        user_embedding: ArrayLike,
        k: int,
        *,
        exclude: Sequence[NDArray[np.int64]] | None = None,
        min_score: float | None = None,
        seen_after: int | None = None,
    ) -> Found:
        """The k best posts of every user.

        Where k is larger than what is left of the corpus, all of that comes back, and −1 behind
        it. Flat and scalar-quantised indexes look at every post; IVF-PQ and HNSW may miss some,
        but give fewer than k only where no more can be given.

        Args:
            user_embedding: [Q, W]; normalised here.
            k: posts per user.
            exclude: per user slots (see ``slots``) he is not to get, for example what he has seen.
            min_score: lowest cosine; quantised kinds compare their own, approximate one.
            seen_after: ms; posts last seen before it are too old, and so are posts without a time.

        Raises:
            ArtifactError: embeddings of another width, with NaN, or of zeros.
            ConfigError: k is below 1.
        """
        queries = check_queries(user_embedding, self.manifest.width)
        posts = self.posts if seen_after is None else self.posts.filter(_last_seen() >= seen_after)
        eligible = np.zeros(self.manifest.next_slot, np.bool_)
        eligible[posts[SLOT].to_numpy()] = True
        found = search(self.index, self.manifest.config, eligible, queries, k, exclude)
        if min_score is None:
            return found
        low = ~(found.score >= min_score)  # also where there is no score
        return Found(
            np.where(low, NONE, found.slot), np.where(low, np.float32(np.nan), found.score)
        )

    def _with_former_columns(self, table: pl.DataFrame) -> pl.DataFrame:
        former = self.posts.cast({POST_ID: table.schema[POST_ID]})
        joined = table.join(former, on=POST_ID, how="left", maintain_order="left", suffix="_former")
        return joined.select(
            POST_ID,
            *(pl.coalesce(name, f"{name}_former").alias(name) for name in OPTIONAL_COLUMNS),
        )

    def _append(self, usable: UsablePosts) -> None:
        first = self.manifest.next_slot
        slots = np.arange(first, first + len(usable.table))
        if self._is_graph:
            self.index.add(usable.embedding)  # an HNSW index numbers its posts itself, like slots
        else:
            self.index.add_with_ids(usable.embedding, slots)
        numbered = usable.table.cast({POST_ID: self.posts.schema[POST_ID]})
        numbered.insert_column(0, pl.Series(SLOT, slots, pl.Int64()))
        self.posts = pl.concat([self.posts, numbered])
        self._update_manifest(first + len(slots))

    def _drop(self, slots: NDArray[np.int64]) -> None:
        if len(slots) == 0:
            return
        if not self._is_graph:
            self.index.remove_ids(slots)
        self.posts = self.posts.filter(~pl.col(SLOT).is_in(pl.Series(slots).implode()))
        self._update_manifest(self.manifest.next_slot)

    def _update_manifest(self, next_slot: int) -> None:
        self.manifest = replace(
            self.manifest,
            posts=len(self.posts),
            tombstones=self.index.ntotal - len(self.posts),
            next_slot=next_slot,
            changed=_now(),
        )

    @property
    def _is_graph(self) -> bool:
        return self.manifest.config.kind == IndexKind.HNSW


def _last_seen() -> pl.Expr:
    return pl.coalesce(LAST_SEEN, FIRST_SEEN)


def _reasons(rejected: pl.DataFrame) -> str:
    counts: Iterable[tuple[str, int]] = rejected["reason"].value_counts(sort=True).iter_rows()
    return ", ".join(f"{reason}: {count}" for reason, count in counts) or "there are none"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
