"""`recsys embeddings skew`: what a ranker loses when it is given other versions than its own.

It was trained on version v of the user embeddings. It is given v, v + 1, v + 2 …, on the rows of
the choose split; of all users or, as in the middle of a publication, of some; as they are or
repaired.

Legend: B requests, U users, N vectors of a user, W width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from recsys.core.bounds import Number, Seed, Settings, Share, Store, Width
from recsys.core.errors import ConfigError
from recsys.core.progress import track
from recsys.core.secrets import mask_address
from recsys.data.batches.ranking_reader import UserVectors
from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split
from recsys.data.loaders.ranking import RankingDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.embeddings.alignment import AffineMap, low_rank_map, mean_of_versions, orthogonal_map
from recsys.embeddings.point_in_time import PointInTimeEmbeddings
from recsys.evaluation.comparisons import compare, measure
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.together import MEAN, NE_DELTA
from recsys.runs.load import LoadedRun, check_run_folder
from recsys.systems.choice import system_of_run
from recsys.systems.ranker.system import RankerSystem
from recsys.systems.runs import load_run

AS_IT_IS, ORTHOGONAL, LOW_RANK = "as it is", "orthogonal map", "low-rank map"
OWN, NOBODY = "v", "no embedding"
_LATEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class SkewConfig(Settings):
    """What is given to which ranker.

    Attributes:
        run_dir: a run of `system=ranker` that reads user embeddings.
        stores: of version v, on which it was trained, v + 1, and so on, each of them servable
            before the rows that it is measured on.
        checkpoint: ``best``, ``last``, or a path.
        dataset: the prepared data set, where it was moved since the training.
        share: of users who have the newer version in the middle of a publication.
        rank: of the low-rank map.
        ridge: of the low-rank map.
        fitted_users: users of both versions on whom maps are fitted, at most.
        seed: chooses them, and those who have the newer version.
        bootstrap: how intervals are made.
    """

    run_dir: str = MISSING
    stores: list[Store] = field(default_factory=list)
    checkpoint: str = "best"
    dataset: str | None = None
    share: Share = 0.5
    rank: Width = 8
    ridge: Annotated[float, Number(at_least=0, at_most=1)] = 1e-3
    fitted_users: Annotated[int, Number(at_least=2, at_most=1_000_000)] = 5_000
    seed: Seed = 0
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def __post_init__(self) -> None:
        """Refuse what has no other version."""
        super().__post_init__()
        if len(self.stores) < 2:
            raise ConfigError(
                "Give the store of the version that the ranker was trained on and at least one "
                "later one: stores=[<of v>,<of v + 1>]."
            )


@dataclass(frozen=True)
class Given:
    """A ranker with some embeddings.

    Attributes:
        version: which, such as ``v + 1``.
        share: of users who have it; the others have v.
        repair: what was done to it.
        ne: mean NE of the binary tasks.
        change: of the mean NE against version v, in per cent, below 0 where it is better; None of
            v itself.
    """

    version: str
    share: float
    repair: str
    ne: float
    change: Interval | None


@dataclass(frozen=True)
class Skew:
    """What was measured.

    Attributes:
        rows: of the choose split.
        fitted_users: on whom the maps of each later version were fitted.
        given: v first, then each version with each repair.
    """

    rows: int
    fitted_users: list[int]
    given: list[Given]


class _Versions:
    """Of each user one version, mapped where there is a map (a ``UserVectors``)."""

    def __init__(
        self,
        own: PointInTimeEmbeddings,
        other: PointInTimeEmbeddings,
        newer: NDArray[np.bool_],
        repair: AffineMap | None,
    ) -> None:
        self._own, self._other, self._newer, self._repair = own, other, newer, repair
        self.shape = own.shape

    def read(
        self, user: NDArray[np.integer], moment: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        values, known = self._own.read(user, moment)
        newer = self._newer[user]
        other, has = self._other.read(user[newer], moment[newer])
        if self._repair is not None:
            other[has] = self._repair.apply(other[has])
        values[newer], known[newer] = other, has
        return values, known


class _Mean:
    """The mean of several versions (a ``UserVectors``)."""

    def __init__(self, versions: Sequence[PointInTimeEmbeddings]) -> None:
        self._versions = versions
        self.shape = versions[0].shape

    def read(
        self, user: NDArray[np.integer], moment: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        read = [one.read(user, moment) for one in self._versions]
        values = np.stack([values for values, _ in read])
        return mean_of_versions(values, np.stack([known for _, known in read]))


class _Nobody:
    """No user has an embedding (a ``UserVectors``)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def read(
        self, user: NDArray[np.integer], moment: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return np.zeros((len(user), *self.shape), np.float32), np.zeros(len(user), np.bool_)


def skew(config: SkewConfig) -> Skew:
    """Predict the choose split with each version and repair, and compare.

    Raises:
        RecsysError: run and stores cannot be used together, or a version was not servable before
            the rows.
    """
    run = load_reader(config.run_dir, config.checkpoint, config.dataset)
    delay = run.config.loader.user_embeddings.delay_hours
    versions = [PointInTimeEmbeddings(run.dataset, [one], delay) for one in config.stores]
    _check(config, run, versions)
    generator = np.random.default_rng(config.seed)
    size = run.dataset.manifest.vocabulary_sizes["user"]
    some = generator.random(size) < config.share
    everyone = np.ones(size, np.bool_)
    own = versions[0]
    given: list[tuple[str, float, str, UserVectors]] = [(OWN, 1.0, AS_IT_IS, own)]
    fitted = []
    for number, other in enumerate(versions[1:], start=1):
        maps, users = _maps(config, run.dataset, own, other)
        fitted.append(users)
        for share, newer in ((1.0, everyone), (config.share, some)):
            for repair, one in maps.items():
                vectors = _Versions(own, other, newer, one)
                given.append((f"v + {number}", share, repair, vectors))
        mean = _Mean(versions[: number + 1])
        given.append((f"v + {number}", 1.0, f"mean of {number + 1} versions", mean))
    given.append((NOBODY, 1.0, AS_IT_IS, _Nobody(own.shape)))
    return _measured(config, run, given, fitted)


def _measured(
    config: SkewConfig,
    run: LoadedRun[Any, Any],
    given: list[tuple[str, float, str, UserVectors]],
    fitted: list[int],
) -> Skew:
    system, tasks = RankerSystem(), run.manifest.tasks
    found, control = [], None
    for version, share, repair, vectors in track(given, "Giving versions"):
        data = RankingDataModule(run.config.loader, run.dataset, vectors)
        frame = system.predicted(run, data, Split.CHOOSE)
        change = None
        if control is None:
            control = frame
        else:
            change = compare(frame, control, tasks, config.bootstrap)[f"{NE_DELTA}/{MEAN}"]
        ne = measure(frame, tasks)[f"ne/{MEAN}"]
        found.append(Given(version, share, repair, ne, change))
    assert control is not None
    return Skew(len(control), fitted, found)


def load_reader(
    run_dir: str, checkpoint: str, dataset: str | None, measured: Split | None = None
) -> LoadedRun[Any, Any]:
    """Load a ranker that reads published user embeddings.

    Args:
        run_dir: the run folder.
        checkpoint: as of ``load_run``, and so are the others.
        dataset: where its data set lies now.
        measured: on which split of a data set that has grown.

    Raises:
        ConfigError: it is a run of another system, or reads none.
        RecsysError: it cannot be loaded.
    """
    check_run_folder(Path(run_dir))
    system = system_of_run(run_dir)
    if system.name != RankerSystem.name:
        raise ConfigError(
            f"{run_dir} is a run of {system.name}, which reads no published user "
            f"embeddings; give the folder of a {RankerSystem.name} run."
        )
    run = load_run(run_dir, checkpoint, dataset, measured)
    if not run.config.loader.user_embeddings.stores:
        raise ConfigError(
            f"{run_dir} was trained without user embeddings; train one with "
            "loader.user_embeddings.stores=[…]."
        )
    return run


def _check(
    config: SkewConfig, run: LoadedRun[Any, Any], versions: Sequence[PointInTimeEmbeddings]
) -> None:
    trained_on = PointInTimeEmbeddings(run.dataset, run.config.loader.user_embeddings.stores).shape
    rows = run.dataset.requests(Split.CHOOSE).request_time
    if not len(rows):
        raise ConfigError(f"{run.dataset.path} has no rows in the choose split to measure on.")
    delay = round(run.config.loader.user_embeddings.delay_hours * MILLISECONDS_PER_HOUR)
    for location, version in zip(config.stores, versions, strict=True):
        if version.shape != trained_on:
            sizes = [f"{vectors} x {width}" for vectors, width in (version.shape, trained_on)]
            raise ConfigError(
                f"{mask_address(location)} has embeddings of {sizes[0]} numbers, and "
                f"{config.run_dir} reads {sizes[1]}: it is of another model."
            )
        as_of, begin = version.publications[-1].timestamp, int(rows.min())
        if as_of + delay > begin:
            raise ConfigError(
                f"{mask_address(location)} was published as of {to_text(as_of)} and is served "
                f"{delay / MILLISECONDS_PER_HOUR:g} h later, and rows begin at {to_text(begin)}: "
                "what was not servable then says of events after the rows. Publish with an "
                "earlier as_of."
            )


def _maps(
    config: SkewConfig,
    dataset: PreparedDataset,
    own: PointInTimeEmbeddings,
    other: PointInTimeEmbeddings,
) -> tuple[dict[str, AffineMap | None], int]:
    """Maps from ``other`` to ``own`` by name, and how many users they were fitted on."""
    users = np.arange(1, dataset.manifest.vocabulary_sizes["user"])
    users = np.random.default_rng(config.seed).permutation(users)[: config.fitted_users]
    latest = np.full(len(users), _LATEST)
    wanted, known = own.read(users, latest)
    values, has = other.read(users, latest)
    both = known & has
    if both.sum() < 2:
        raise ConfigError(
            f"Of {len(users):,} users {both.sum()} have an embedding in two of the stores, too few "
            "to fit a map on; give publications of one data set."
        )
    source, target = values[both], wanted[both]
    maps = {
        AS_IT_IS: None,
        ORTHOGONAL: orthogonal_map(source, target),
        LOW_RANK: low_rank_map(source, target, config.rank, config.ridge),
    }
    return maps, int(both.sum())
