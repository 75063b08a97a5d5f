"""`recsys publish`: user embeddings as of a moment, written to a key-value store."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.artifacts.manifest import ARTIFACT
from recsys.artifacts.timeline_tower import (
    TimelineTowerArtifact,
    load_timeline_tower,
)
from recsys.core.bounds import BatchSize, Days, Jobs, Settings, Store
from recsys.core.engines import THIS_PROCESS, Engine, EngineConfig
from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.core.folders import read_whole
from recsys.core.open_engine import open_engine
from recsys.core.process_engine import ProcessEngine
from recsys.core.progress import track
from recsys.core.secrets import mask_address
from recsys.core.threads import one_thread
from recsys.data.contract.moments import as_of_moment, to_text
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.stores.check import check_dataset
from recsys.data.stores.dataset import TIMELINES, PreparedDataset
from recsys.data.stores.timelines import TimelineStore
from recsys.data.stores.timelines.layout import StoreManifest
from recsys.embeddings.changes import Moment, block_checksums
from recsys.embeddings.compute import TimelineEmbedder
from recsys.embeddings.known_ids import check_ids
from recsys.embeddings.plan import of_same_dataset, plan_publication
from recsys.embeddings.processes import (
    Block,
    Computation,
    ComputeRows,
    compute_blocks,
    digest,
)
from recsys.embeddings.stores import EmbeddingStore, Publication, open_store
from recsys.embeddings.stores.base import encode_user
from recsys.embeddings.users import Users

DEFAULT_STORE = "embeddings"
#: Users written in one transaction: 32 MB at the paper's size.
_USERS_PER_WRITE = 4_096


@dataclass(frozen=True)
class PublishConfig(Settings):
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
        processes: of this machine that compute; each holds the tower and uses one thread.
        engine: ``ray`` computes by Ray's workers instead.
        trust: load an artifact that is not in the user's list of trusted ones.
    """

    run_dir: str | None = None
    artifact: str | None = None
    dataset: str | None = None
    as_of: str | None = None
    store: Store | None = None
    only_changed: bool = True
    retention_days: Days = 365.0
    batch_users: BatchSize = 64
    processes: Jobs = 1
    engine: EngineConfig = field(default_factory=EngineConfig)
    trust: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        if (self.run_dir is None) == (self.artifact is None):
            raise ConfigError("Give either run_dir=… or artifact=…: the model to publish with.")
        self.engine.refuse_beside(self.processes)

    @property
    def artifact_folder(self) -> Path:
        """The folder of the artifact that is published."""
        if self.artifact is not None:
            return Path(self.artifact)
        assert self.run_dir is not None
        return Path(self.run_dir) / ARTIFACT


@dataclass(frozen=True)
class PublishReport:
    """What was published.

    Attributes:
        version: of the publication.
        as_of: ms.
        store: where it lies; an address without user and password.
        scope: whose embeddings were computed, and why.
        active_users: users with an embedding as of this moment.
        published_users: users whose embedding was written.
        withdrawn_users: users who are not active any more, or whom the data set, prepared anew,
            does not know.
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
    folder = config.artifact_folder
    artifact = read_whole(folder, lambda: load_timeline_tower(folder, config.trust))
    path = _dataset_path(config, artifact.manifest.dataset["path"])
    location = config.store or str(folder.parent / DEFAULT_STORE)
    with _engine(config, folder, path) as engine, open_store(location) as store:
        try:
            opened = read_whole(path, lambda: _begin(store, artifact, path, config))
            return _publish(store, artifact, opened, config, location, engine)
        except RecsysError:
            with suppress(RecsysError):  # the next publication does it
                store.abandon()
            raise


def _engine(config: PublishConfig, artifact: Path, dataset: Path) -> AbstractContextManager[Engine]:
    """What computes embeddings."""
    if config.processes > 1:
        return nullcontext(ProcessEngine(config.processes, "torch"))
    return open_engine(config.engine, artifact, dataset)


@dataclass(frozen=True)
class _Begun:
    """A publication that has begun, and the data set as it was then."""

    moment: Moment
    former: Publication | None
    publication: Publication
    timelines: TimelineStore
    users: Users


def _begin(
    store: EmbeddingStore, artifact: TimelineTowerArtifact, path: Path, config: PublishConfig
) -> _Begun:
    """Begin, and open the data set then: a user deleted from now on is not written.

    What readers see is looked up after that too: nobody else can publish any more.
    """
    dataset = PreparedDataset.open(path)
    check_dataset(dataset, anew=True)
    check_ids(artifact, dataset)
    moment = Moment(
        as_of_moment(config.as_of, dataset.manifest),
        round(artifact.manifest.gap_hours * MILLISECONDS_PER_HOUR),
        round(config.retention_days * MILLISECONDS_PER_DAY),
    )
    publication = store.begin(moment.as_of, _details(artifact, moment, config, dataset))
    timelines = TimelineStore.open(path / TIMELINES)
    return _Begun(moment, store.current(), publication, timelines, Users.of(dataset))


def _publish(
    store: EmbeddingStore,
    artifact: TimelineTowerArtifact,
    opened: _Begun,
    config: PublishConfig,
    location: str,
    engine: Engine,
) -> PublishReport:
    manifest, moment, users = artifact.manifest, opened.moment, opened.users
    plan = plan_publication(
        opened.timelines,
        users.index,
        moment,
        opened.former,
        opened.publication,
        manifest.age_edges,
        config.only_changed,
    )
    if not plan.active.any():
        raise ConfigError(
            f"As of {to_text(moment.as_of)} no user has an event older than the gap of "
            f"{manifest.gap_hours:g} h and younger than retention_days="
            f"{config.retention_days:g}: every embedding would be withdrawn; give an as_of= "
            "within or soon after the log."
        )
    withdrawn = _withdraw(store, users, plan.withdrawn)
    if opened.former is not None and not of_same_dataset(opened.former, opened.publication):
        withdrawn += _withdraw_unknown(store, users)
    start = time.perf_counter()
    _compute(store, artifact, opened, np.flatnonzero(plan.computed), config, engine)
    seconds = time.perf_counter() - start
    store.commit()
    store.prune()
    published = int(plan.computed.sum())
    vectors, integers = manifest.output["published"]["shape"]
    return PublishReport(
        version=opened.publication.version,
        as_of=moment.as_of,
        store=mask_address(location),
        scope=plan.scope,
        active_users=int(plan.active.sum()),
        published_users=published,
        withdrawn_users=withdrawn,
        bytes_per_user=vectors * integers * 8,
        store_bytes=store.size_bytes(),
        compute_seconds=seconds,
        users_per_second=published / seconds if published else 0.0,
    )


def _dataset_path(config: PublishConfig, trained_on: str) -> Path:
    if config.dataset is None and not Path(trained_on).exists():
        raise ArtifactError(
            f"{config.artifact_folder} was made with the prepared data set {trained_on}, which is "
            "not there; if it was moved, say where it lies now: dataset=<its folder>."
        )
    return Path(config.dataset or trained_on)


def _details(
    artifact: TimelineTowerArtifact, moment: Moment, config: PublishConfig, dataset: PreparedDataset
) -> dict[str, Any]:
    """What a later publication must know to tell what changed."""
    timelines = dataset.path / TIMELINES
    return {
        "tower": artifact.identity,
        "batch_users": config.batch_users,
        "gap": moment.gap,
        "retention": moment.retention,
        "timelines": str(timelines.resolve()),
        "dataset": list(dataset.manifest.lineage),
        "blocks": block_checksums(StoreManifest.load(timelines)),
    }


def _withdraw(store: EmbeddingStore, users: Users, withdrawn: NDArray[np.bool_]) -> int:
    positions = np.flatnonzero(withdrawn)
    return sum(
        store.withdraw_many(users.ids(positions[start : start + _USERS_PER_WRITE]))
        for start in range(0, len(positions), _USERS_PER_WRITE)
    )


def _withdraw_unknown(store: EmbeddingStore, users: Users) -> int:
    """Withdraw stored users that the data set does not know; a walk over the whole store."""
    unknown = users.unknown(store.users())
    return sum(
        store.withdraw_many(unknown[start : start + _USERS_PER_WRITE])
        for start in range(0, len(unknown), _USERS_PER_WRITE)
    )


def _compute(
    store: EmbeddingStore,
    artifact: TimelineTowerArtifact,
    opened: _Begun,
    positions: NDArray[np.int64],
    config: PublishConfig,
    engine: Engine,
) -> None:
    """Compute users in blocks and write each block, all in the order of their keys."""
    if not len(positions):
        return
    timelines, moment, users = opened.timelines, opened.moment, opened.users
    embedder = TimelineEmbedder(artifact, timelines, moment, config.batch_users)
    by_length = users.index[positions][np.argsort(-embedder.num_events(users.index[positions]))]
    # what is checked here holds for workers too
    with nullcontext() if engine is THIS_PROCESS else one_thread():
        embedder.rows(by_length[: config.batch_users])  # the longest first: memory shows at once
        probe = by_length[len(by_length) // 2 :][: config.batch_users]
        computation = Computation(
            artifact.folder.absolute(),
            artifact.identity,
            timelines.path.absolute(),
            moment,
            config.batch_users,
            tuple(probe.tolist()),
            digest(embedder.check_composition(probe)),
        )
        blocks = _blocks(users, positions)
        rows = compute_blocks(blocks, ComputeRows(computation, embedder), engine)
        for block, some in track(rows, "Publishing user embeddings", total=len(blocks)):
            store.put_many(block.ids, some)


def _blocks(users: Users, positions: NDArray[np.int64]) -> list[Block]:
    ids = users.ids(positions)
    order = sorted(range(len(ids)), key=lambda place: encode_user(ids[place]))
    starts = range(0, len(order), _USERS_PER_WRITE)
    parts = [order[start : start + _USERS_PER_WRITE] for start in starts]
    return [Block([ids[one] for one in part], users.index[positions[part]]) for part in parts]
