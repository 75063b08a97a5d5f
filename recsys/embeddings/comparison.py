"""`recsys embeddings compare`: how alike the embeddings of two publications are, user by user.

Legend: U users, N vectors of a user, W width of a vector, F = N · W.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from recsys.core.bounds import Few, Number, PagePath, Seed, Settings, Store
from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.secrets import mask_address
from recsys.data.stores.check import open_checked
from recsys.embeddings.activity import Activity
from recsys.embeddings.alignment import orthogonal_map
from recsys.embeddings.likeness import cosines, dimensions, nearest, overlap, overlap_by_chance
from recsys.embeddings.point_in_time import look_at, named
from recsys.embeddings.side_by_side import Sample, Walked, sample, sampled, walk
from recsys.embeddings.stores import EmbeddingStore, Publication, open_store

#: A cosine above it counts as alike (DV365, appendix B, whose versions of seven days apart are).
ALIKE = 0.9
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class CompareConfig(Settings):
    """What to compare.

    Attributes:
        a: a store: ``redis://host:port/database``, or the folder of an LMDB.
        b: another one, as a rule the later version.
        dataset: the prepared data set of the users, to tell the active ones from the others.
        neighbours: users nearest to a user whose sets are compared.
        sample: users among whom neighbours are looked for, and of whom dimensions are measured.
        seed: chooses the sample.
        out: a page (.html) to write.
    """

    a: Store = MISSING
    b: Store = MISSING
    dataset: str | None = None
    neighbours: Few = 10
    sample: Annotated[int, Number(at_least=2, at_most=20_000)] = 2_000
    seed: Seed = 0
    out: PagePath | None = None


@dataclass(frozen=True)
class Version:
    """One of the two publications.

    Attributes:
        store: where it lies; an address without user and password.
        version: number of the publication.
        timestamp: the moment it was computed for, ms.
        users: with an embedding.
        norm: mean length of a user's embedding.
        effective_rank: of the sample; NaN where its users do not differ.
        first_component: share of the sample's variance on the first principal component.
        cosine_of_others: mean cosine of two different users of the sample: where it is near 1, a
            high cosine of the versions says little.
    """

    store: str
    version: int
    timestamp: int
    users: int
    norm: float
    effective_rank: float
    first_component: float
    cosine_of_others: float


@dataclass(frozen=True)
class Group:
    """Some of the users.

    Attributes:
        name: which.
        users: of them, with a cosine.
        cosine: mean.
        low_cosine: that of the 5 % whose embeddings moved most, at the most.
        alike: share of cosines above :data:`ALIKE`.
        sampled: of them, in the sample.
        overlap: mean Jaccard index of the neighbours; NaN without any in the sample.
    """

    name: str
    users: int
    cosine: float
    low_cosine: float
    alike: float
    sampled: int
    overlap: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was found.

    Attributes:
        a: the one.
        b: the other.
        vectors: N of both.
        width: W of both.
        same_tower: whether one model made both; None where a store does not say.
        in_both: users of both.
        only_in_a: users of ``a`` alone.
        only_in_b: users of ``b`` alone.
        without_direction: users of both of whom one embedding is all zeros: left out.
        everyone: all users of both.
        quantiles: of the cosines, by :data:`QUANTILES`.
        norm_ratios: of the lengths in ``b`` to those in ``a``, by :data:`QUANTILES`.
        aligned_cosine: mean cosine after the rotation per vector that brings ``a`` nearest to
            ``b``, fitted on half of the sample and measured on the other; NaN for fewer than 2 W
            users.
        unaligned_cosine: without it, of the same users.
        neighbours: whose sets are compared.
        sampled: users among whom they were looked for.
        by_chance: the Jaccard index of random sets.
        groups: of users by activity and by what they did between the versions.
        cosines: [U] of all users.
    """

    a: Version
    b: Version
    vectors: int
    width: int
    same_tower: bool | None
    in_both: int
    only_in_a: int
    only_in_b: int
    without_direction: int
    everyone: Group
    quantiles: list[float]
    norm_ratios: list[float]
    aligned_cosine: float
    unaligned_cosine: float
    neighbours: int
    sampled: int
    by_chance: float
    groups: list[Group]
    cosines: NDArray[np.float64]


def compare(config: CompareConfig) -> Comparison:
    """Read both stores, each user once, and compare.

    Raises:
        RecsysError: a store cannot be read, or they cannot be compared.
    """
    if _is_same(config.a, config.b):
        raise ConfigError(
            f"a and b are both {mask_address(config.a)}: a store keeps the publication that "
            "readers see alone; give two stores, such as those of two runs or generations."
        )
    first, shape = look_at(config.a)
    second, other_shape = look_at(config.b)
    if shape != other_shape:
        sizes = [f"{vectors} x {width}" for vectors, width in (shape, other_shape)]
        raise ConfigError(
            f"{named(config.a)} has embeddings of {sizes[0]} numbers and that of "
            f"{mask_address(config.b)} of {sizes[1]}, so they are of other models; compare "
            "publications of one model."
        )
    activity = None
    if config.dataset is not None:
        activity = Activity(open_checked(config.dataset), first, second)
    with ExitStack() as stack:
        stores = [
            stack.enter_context(open_store(location, readonly=True))
            for location in (config.a, config.b)
        ]
        walked = walk(stores[0], stores[1], shape)
        names = (mask_address(config.a), mask_address(config.b))
        chosen = sample(walked, names, config.sample, config.seed)
        values = [sampled(store, chosen.users, shape) for store in stores]
        for location, store, publication in zip(
            (config.a, config.b), stores, (first, second), strict=True
        ):
            _refuse_published_anew(location, store, publication)
    return _compared(config, (first, second), shape, walked, chosen, values, activity)


def _is_same(a: str, b: str) -> bool:
    if "://" in a or "://" in b:
        return a == b
    return Path(a).resolve() == Path(b).resolve()


def _compared(
    config: CompareConfig,
    publications: tuple[Publication, Publication],
    shape: tuple[int, int],
    walked: Walked,
    chosen: Sample,
    values: Sequence[NDArray[np.float32]],
    activity: Activity | None,
) -> Comparison:
    known = ~np.isnan(walked.cosine)
    enough = len(chosen.users) > config.neighbours + 1
    shared = np.full(len(walked.users), np.nan)
    if enough:
        near = [nearest(one, config.neighbours) for one in values]
        shared[chosen.position] = overlap(near[0], near[1])
    members = {} if activity is None else activity.groups(walked.users)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (walked.norms[1] / walked.norms[0])[known]
    before, after = _aligned(values, shape)
    a, b = (
        _version(location, publication, len(walked.users) + walked.only[side], side, walked, values)
        for side, (location, publication) in enumerate(
            zip((config.a, config.b), publications, strict=True)
        )
    )
    return Comparison(
        a=a,
        b=b,
        vectors=shape[0],
        width=shape[1],
        same_tower=_same_tower(*publications),
        in_both=len(walked.users),
        only_in_a=walked.only[0],
        only_in_b=walked.only[1],
        without_direction=int((~known).sum()),
        everyone=_group("everyone", known, walked.cosine, shared),
        quantiles=_quantiles(walked.cosine[known]),
        norm_ratios=_quantiles(ratios),
        aligned_cosine=after,
        unaligned_cosine=before,
        neighbours=config.neighbours,
        sampled=len(chosen.users),
        by_chance=overlap_by_chance(len(chosen.users), config.neighbours) if enough else np.nan,
        groups=[
            _group(name, known & inside, walked.cosine, shared) for name, inside in members.items()
        ],
        cosines=walked.cosine[known],
    )


def _version(
    location: str,
    publication: Publication,
    users: int,
    side: int,
    walked: Walked,
    values: Sequence[NDArray[np.float32]],
) -> Version:
    flat = values[side]
    rank, share = dimensions(flat) if len(flat) > 1 else (np.nan, np.nan)
    return Version(
        store=mask_address(location),
        version=publication.version,
        timestamp=publication.timestamp,
        users=users,
        norm=walked.norm_sums[side] / users,
        effective_rank=rank,
        first_component=share,
        cosine_of_others=_cosine_of_others(flat),
    )


def _cosine_of_others(values: NDArray[np.float32]) -> float:
    """Mean cosine of two different rows: ‖Σ u‖² are all pairs, each row with itself among them."""
    rows = len(values)
    if rows < 2:
        return float("nan")
    unit = values.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return float(((unit.sum(axis=0) ** 2).sum() - rows) / (rows * (rows - 1)))


def _aligned(values: Sequence[NDArray[np.float32]], shape: tuple[int, int]) -> tuple[float, float]:
    """Mean cosine of every other user, before and after a rotation fitted on those between."""
    vectors, width = shape
    if len(values[0]) < 2 * width:
        return float("nan"), float("nan")
    one, other = (each.reshape(-1, vectors, width) for each in values)
    rotated = orthogonal_map(one[::2], other[::2]).apply(one[1::2])
    wanted = values[1][1::2]
    return (
        float(cosines(values[0][1::2], wanted).mean()),
        float(cosines(rotated.reshape(len(rotated), -1), wanted).mean()),
    )


def _group(
    name: str, inside: NDArray[np.bool_], cosine: NDArray[np.float64], shared: NDArray[np.float64]
) -> Group:
    mine, overlaps = cosine[inside], shared[inside & ~np.isnan(shared)]
    return Group(
        name=name,
        users=len(mine),
        cosine=_mean(mine),
        low_cosine=float(np.quantile(mine, 0.05)) if len(mine) else np.nan,
        alike=_mean(mine > ALIKE),
        sampled=len(overlaps),
        overlap=_mean(overlaps),
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _quantiles(values: NDArray[np.float64]) -> list[float]:
    if not len(values):
        return [float("nan")] * len(QUANTILES)
    return [float(one) for one in np.quantile(values, QUANTILES)]


def _same_tower(first: Publication, second: Publication) -> bool | None:
    towers = [one.details.get("tower") for one in (first, second)]
    return None if None in towers else towers[0] == towers[1]


def _refuse_published_anew(location: str, store: EmbeddingStore, publication: Publication) -> None:
    current = store.current()
    if current is None or current.version != publication.version:
        raise ArtifactError(
            f"{named(location)} was published anew while it was read; start the comparison again."
        )
