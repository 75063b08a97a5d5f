"""What the verbs of an index are asked, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import HoursAboveZero, OneOf, OutPath, Settings
from recsys.core.errors import ConfigError
from recsys.index.catalogue import Added, Removed, StoredIndex
from recsys.index.faiss.gpus import AUTO, DEVICES
from recsys.index.faiss.kinds import IndexConfig


@dataclass(frozen=True)
class IndexBuildConfig(Settings):
    """What index to build of which items.

    Attributes:
        embeddings: item embeddings: .npz, Parquet, or the folder a post tower wrote. Give this,
            ``artifact`` or ``run_dir``.
        out: the index's folder; an index that is there is replaced in one step.
        dataset: a prepared data set, whose log says when items were first and last seen, and
            whose item texts give titles.
        posts: Parquet or CSV with ``item_id`` and any of ``title``, ``first_seen`` and
            ``last_seen`` (ms), which goes before what the data set says.
        as_of: ISO 8601 (UTC) or ms: items first seen later are left out, and later events not
            looked at; None takes everything.
        max_age_hours: leave out items last seen longer than this before ``as_of``.
        device: where IVF-PQ finds the centroids of its lists and sorts items into them; ``auto``
            takes GPUs where FAISS has them.
        index: kind and sizes.
        artifact: an exported model whose items are in a tree: the items of its data set are put
            into their nodes.
        run_dir: a run of such a model, whose ``artifact`` it is.
        checkpoint: of the run: ``best``, ``last``, or a path.
        trust: load an artifact that is not in the user's list of trusted ones.
    """

    embeddings: str | None = None
    out: OutPath = MISSING
    dataset: str | None = None
    posts: str | None = None
    as_of: str | None = None
    max_age_hours: HoursAboveZero | None = None
    device: Annotated[str, OneOf(DEVICES)] = AUTO
    index: IndexConfig = field(default_factory=IndexConfig)
    artifact: str | None = None
    run_dir: str | None = None
    checkpoint: str = "best"
    trust: bool = False

    def __post_init__(self) -> None:
        """Refuse items of two kinds and of none, and ages of items that nobody dates."""
        super().__post_init__()
        if sum(one is not None for one in (self.embeddings, self.artifact, self.run_dir)) != 1:
            raise ConfigError(
                "Give either embeddings=…, of items, for a FAISS index; or run_dir=… or "
                "artifact=…, of a model whose items are in a tree (hsnn)."
            )
        if self.is_tree and (self.index != IndexConfig() or self.device != AUTO):
            raise ConfigError(
                "index.…= and device= are of FAISS indexes; a tree is what its model has learned: "
                "leave them out."
            )
        dated = self.is_tree or self.dataset is not None or self.posts is not None
        if self.as_of is not None and not dated:
            raise ConfigError("as_of= needs dataset= or posts=, which say when items were seen.")
        if self.max_age_hours is not None and self.as_of is None:
            raise ConfigError("max_age_hours= is counted back from as_of=; give both.")

    @property
    def is_tree(self) -> bool:
        """Whether it is of a model whose items are in a tree."""
        return self.embeddings is None

    @property
    def inputs(self) -> list[str]:
        """What is read."""
        read = (self.embeddings, self.artifact, self.run_dir, self.dataset, self.posts)
        return [one for one in read if one is not None]


@dataclass(frozen=True)
class IndexAddConfig(Settings):
    """Which items to add to an index.

    Attributes:
        index: the index's folder.
        embeddings: of the new items, as for building; none for a tree, which has its items from
            their features.
        dataset: as for building; None takes, for a tree, the one it was built of, as it is now.
        posts: as for building; for a tree the items to add, None for those that have come to the
            log since the last time.
        same_model: the embeddings were made by the model of the index though their file is
            another one; without it another identity is refused.
        trust: load networks of a tree that are not in the user's list of trusted artifacts.
    """

    index: str = MISSING
    embeddings: str | None = None
    dataset: str | None = None
    posts: str | None = None
    same_model: bool = False
    trust: bool = False


@dataclass(frozen=True)
class IndexRemoveConfig(Settings):
    """Which items to take out of an index; give one of the two.

    Attributes:
        index: the index's folder.
        posts: Parquet or CSV with ``item_id`` of the items.
        dataset: a prepared data set, whose log may call the column of items otherwise.
        last_seen_before: ISO 8601 (UTC) or ms: all items last seen before it.
    """

    index: str = MISSING
    posts: str | None = None
    dataset: str | None = None
    last_seen_before: str | None = None

    def __post_init__(self) -> None:
        """Refuse none and both."""
        super().__post_init__()
        if (self.posts is None) == (self.last_seen_before is None):
            raise ConfigError(
                "Give either posts=…, a file of the items to remove, or last_seen_before=…."
            )


@dataclass(frozen=True, eq=False)
class IndexChange:
    """What became of an index.

    Attributes:
        index: as it is now, saved.
        change: what was added or removed.
        not_in_log: of the items given those that the data set's log does not have; None without
            one.
        remarks: sentences about the nodes of a tree.
    """

    index: StoredIndex
    change: Added | Removed
    not_in_log: int | None = None
    remarks: tuple[str, ...] = ()
