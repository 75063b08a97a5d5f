"""`recsys publish`: user embeddings as of a moment, written to a key-value store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.dataset import TIMELINES, PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.progress import track
from recsys.data.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.timelines import TimelineStore, TimelineWriter
from recsys.data.timelines.layout import StoreManifest
from recsys.data.vocabulary import INDEX, RAW, Vocabulary
from recsys.errors import ConfigError, DataError
from recsys.export.artifact import DEFAULT_FOLDER, Artifact, load_artifact
from recsys.export.changes import (
    Moment,
    active_users,
    block_checksums,
    changed_users,
    users_with_late_events,
)
from recsys.export.embedding import UserEmbedder
from recsys.export.embedding_store import EmbeddingStore, Publication, open_store
from recsys.export.embedding_store.base import UserId

DEFAULT_STORE = "embeddings"
#: Users whose activity is looked up at once.
_USERS_PER_STEP = 1_000_000
#: Users written in one transaction: 32 MB at the paper's size.
_USERS_PER_WRITE = 4_096


@dataclass(frozen=True)
class PublishConfig:
    """What to publish where.

    Attributes:
        run_dir: a run folder with an artifact; give this or ``artifact``.
        artifact: the artifact folder.
        dataset: the prepared data set; None takes the one the model was trained on.
        as_of: the moment, as ISO 8601 (UTC) or in ms; None takes the end of the data set's last
            split.
        store: ``redis://host:port/database``, or a folder for LMDB; None makes ``embeddings``
            beside the artifact.
        only_changed: compute only users whose embedding may have changed since the last
            publication; everyone where that was made with another model or settings.
        retention_days: users without an event in the last so many days are not active.
        batch_users: users per call of the tower. Another number may change the last bits of
            some encoders, so it makes a publication of everyone.
    """

    run_dir: str | None = None
    artifact: str | None = None
    dataset: str | None = None
    as_of: str | None = None
    store: str | None = None
    only_changed: bool = True
    retention_days: float = 365.0
    batch_users: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if (self.run_dir is None) == (self.artifact is None):
            raise ConfigError("Give either run_dir=… or artifact=…: the model to publish with.")
        if self.batch_users < 1 or self.retention_days <= 0:
            raise ConfigError(
                f"batch_users is {self.batch_users} and retention_days {self.retention_days:g}; "
                "both must be positive."
            )


@dataclass(frozen=True)
class PublishReport:
    """What was published.

    Attributes:
        version: of the publication.
        as_of: ms.
        store: where it lies.
        scope: whose embeddings were computed, and why.
        active_users: users with an embedding as of this moment.
        published_users: users whose embedding was written.
        withdrawn_users: users who are not active any more.
        bytes_per_user: payload of one user.
        store_bytes: size of the store.
        compute_seconds: from the first history to the last write.
        users_per_second: published users per second of that.
    """

    version: int
    as_of: int
    store: str
    scope: str
    active_users: int
    published_users: int
    withdrawn_users: int
    bytes_per_user: int
    store_bytes: int
    compute_seconds: float
    users_per_second: float


def publish(config: PublishConfig) -> PublishReport:
    """Compute and publish embeddings; readers see all of the publication or nothing of it.

    A publication that was killed is run again with the same command; what it had written is
    taken back first.

    Raises:
        RecsysError: the artifact, data set or store cannot be used, or ``as_of`` cannot be read.
    """
    folder = artifact_folder(config)
    artifact = load_artifact(folder)
    manifest = artifact.manifest
    dataset = PreparedDataset.open(config.dataset or manifest.dataset["path"])
    moment = Moment(
        parse_moment(config.as_of, dataset.manifest),
        round(manifest.gap_hours * MILLISECONDS_PER_HOUR),
        round(config.retention_days * MILLISECONDS_PER_DAY),
    )
    location = config.store or str(folder.parent / DEFAULT_STORE)
    with open_store(location) as store:
        former = store.current()
        # Begin first: a user deleted after this moment is not written, even if the timelines
        # opened below still hold the user.
        details = _details(artifact, moment, config, dataset.path / TIMELINES)
        publication = store.begin(moment.as_of, details)
        timelines = TimelineStore.open(dataset.path / TIMELINES)
        users = _Users.of(dataset.path)
        plan = _plan(artifact, timelines, users.index, moment, former, publication, config)
        withdrawn = _withdraw(store, users, plan.withdrawn)
        embedder = UserEmbedder(artifact, timelines, moment, config.batch_users)
        start = time.perf_counter()
        _compute(store, embedder, users, np.flatnonzero(plan.computed), config.batch_users)
        seconds = time.perf_counter() - start
        store.commit()
        store.prune()
        published = int(plan.computed.sum())
        vectors, integers = manifest.output["published"]["shape"]
        return PublishReport(
            version=publication.version,
            as_of=moment.as_of,
            store=location,
            scope=plan.scope,
            active_users=int(plan.active.sum()),
            published_users=published,
            withdrawn_users=withdrawn,
            bytes_per_user=vectors * integers * 8,
            store_bytes=store.size_bytes(),
            compute_seconds=seconds,
            users_per_second=published / seconds if published else 0.0,
        )


def delete_user(dataset: Path | str, store: str, user: UserId) -> int:
    """Remove a user from the timelines and from the embedding store, at once.

    Safe to run again where it was interrupted. Requests and features of the data set are not
    touched: prepare it again without the user to train without them.

    Returns:
        The number of events removed.

    Raises:
        DataError: the user shares a hashed index with others, whose events would go too.
    """
    path = Path(dataset)
    users = _Users.of(path)
    removed = 0
    for index in users.index[users.raw == user].tolist():
        if np.count_nonzero(users.index == index) > 1:
            raise DataError(
                f"User {user!r} shares the hashed index {index} with other users, so their events "
                "cannot be told apart; prepare the data set with dictionary ids to delete users."
            )
        with TimelineWriter(path / TIMELINES) as writer:
            removed += writer.delete_users([index])
    # After the timelines: a publication that begins now finds the user in neither.
    with open_store(store) as opened:
        opened.delete(user)
    return removed


def artifact_folder(config: PublishConfig) -> Path:
    """The folder of the artifact that is published."""
    if config.artifact is not None:
        return Path(config.artifact)
    assert config.run_dir is not None
    return Path(config.run_dir) / DEFAULT_FOLDER


def parse_moment(text: str | None, manifest: DatasetManifest) -> int:
    """Milliseconds of an ISO 8601 moment (UTC where it names no zone) or of a number.

    Raises:
        ConfigError: it is neither, or there is none and the data set has no splits.
    """
    if text is None:
        if not manifest.split_bounds:
            raise ConfigError(f"The data set {manifest.name} has no splits; give as_of=….")
        return max(last for _, last in manifest.split_bounds.values())
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"as_of={text} is no moment; write it as 2022-05-09T00:00:00 (UTC) or in milliseconds."
        ) from error
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return round(parsed.timestamp() * 1_000)


@dataclass(frozen=True, eq=False)
class _Users:
    """Every user of a data set: raw ids [U] and indices [U]."""

    raw: NDArray[Any]
    index: NDArray[np.int32]

    @classmethod
    def of(cls, dataset: Path) -> _Users:
        path = dataset / "vocabulary" / "user.parquet"
        if not path.is_file():
            raise DataError(
                f"{path} is missing; prepare the data set again with `recsys data prepare`."
            )
        table = Vocabulary.load(path).table
        raw = table[RAW]
        ids = raw.to_numpy() if raw.dtype != pl.String else np.array(raw.to_list(), dtype=object)
        return cls(ids, table[INDEX].to_numpy())

    def ids(self, positions: NDArray[np.int64]) -> list[UserId]:
        found: list[UserId] = self.raw[positions].tolist()
        return found


@dataclass(frozen=True, eq=False)
class _Plan:
    """Who is active, computed and withdrawn ([U] bool each), and why."""

    active: NDArray[np.bool_]
    computed: NDArray[np.bool_]
    withdrawn: NDArray[np.bool_]
    scope: str


def _details(
    artifact: Artifact, moment: Moment, config: PublishConfig, timelines: Path
) -> dict[str, Any]:
    """What a later publication must know to tell what changed."""
    return {
        "tower": artifact.identity,
        "batch_users": config.batch_users,
        "gap": moment.gap,
        "retention": moment.retention,
        "timelines": str(timelines.resolve()),
        "blocks": block_checksums(StoreManifest.load(timelines)),
    }


def _plan(
    artifact: Artifact,
    timelines: TimelineStore,
    users: NDArray[np.int32],
    moment: Moment,
    former: Publication | None,
    publication: Publication,
    config: PublishConfig,
) -> _Plan:
    active = _in_steps(users, lambda some: active_users(timelines, some, moment))
    reason = _reason_for_everyone(former, publication, config)
    if former is None or reason is not None:
        return _Plan(active, active, ~active, f"everyone: {reason}")
    last = Moment(former.timestamp, former.details["gap"], former.details["retention"])
    edges = artifact.manifest.age_edges
    changed = _in_steps(users, lambda some: changed_users(timelines, some, last, moment, edges))
    late = users_with_late_events(
        timelines, StoreManifest.load(timelines.path), former.details["blocks"], last.cutoff
    )
    changed |= np.isin(users, late)
    was_active = _in_steps(users, lambda some: active_users(timelines, some, last))
    scope = f"changed since version {former.version}"
    return _Plan(active, active & changed, was_active & ~active, scope)


def _reason_for_everyone(
    former: Publication | None, publication: Publication, config: PublishConfig
) -> str | None:
    if former is None:
        return "the store is new"
    if not config.only_changed:
        return "asked for"
    if publication.timestamp < former.timestamp:
        return "the last publication is of a later moment"
    for name in ("tower", "batch_users", "gap", "retention", "timelines"):
        if publication.details[name] != former.details.get(name):
            return f"the last publication had another {name}"
    return None


def _in_steps(users: NDArray[np.int32], evaluate: Any) -> NDArray[np.bool_]:
    parts = [
        evaluate(users[start : start + _USERS_PER_STEP])
        for start in range(0, len(users), _USERS_PER_STEP)
    ]
    return np.concatenate([np.empty(0, np.bool_), *parts])


def _withdraw(store: EmbeddingStore, users: _Users, withdrawn: NDArray[np.bool_]) -> int:
    positions = np.flatnonzero(withdrawn)
    return sum(
        store.withdraw_many(users.ids(positions[start : start + _USERS_PER_WRITE]))
        for start in range(0, len(positions), _USERS_PER_WRITE)
    )


def _compute(
    store: EmbeddingStore,
    embedder: UserEmbedder,
    users: _Users,
    positions: NDArray[np.int64],
    batch_users: int,
) -> None:
    """Users of similar history length together, the longest first: memory shows at the start."""
    if not len(positions):
        return
    events = embedder.num_events(users.index[positions])
    positions = positions[np.argsort(-events, kind="stable")]
    embedder.check_composition(users.index[positions[len(positions) // 2 :][:batch_users]])
    waiting: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    starts = range(0, len(positions), batch_users)
    for start in track(starts, "Publishing user embeddings"):
        batch = positions[start : start + batch_users]
        waiting.append((batch, embedder.rows(users.index[batch])))
        if len(waiting) * batch_users >= _USERS_PER_WRITE or start == starts[-1]:
            written = np.concatenate([batch for batch, _ in waiting])
            store.put_many(users.ids(written), np.concatenate([rows for _, rows in waiting]))
            waiting = []
