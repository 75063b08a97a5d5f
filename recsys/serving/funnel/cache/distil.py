"""Training an adjuster: the scorer teaches, by the samples of a ledger (Smart Cache §3).

Legend: n samples, K tasks, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import Count, Few, Number, OutPath, Seed, Settings
from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.core.folders import check_file
from recsys.data.contract.ledger import scan_ledger
from recsys.serving.funnel.boosting import grow
from recsys.serving.funnel.cache.adjuster import Adjuster, Line, inputs, read_adjuster
from recsys.serving.funnel.cache.rescore import FEATURES, Cached
from recsys.serving.funnel.ledger import SAMPLES, describe

#: Requests by time: the first are learned from, then it is seen when to stop, then how good it is.
_LEARNED, _STOPPED = 0.7, 0.8
#: Fewer samples teach nothing.
_FEWEST = 1_000
#: Ends of the gaps, in hours, by which errors are told.
_GAPS = (1.0, 3.0, 6.0, 12.0, 24.0, np.inf)


@dataclass(frozen=True)
class AdjusterConfig(Settings):
    """How an adjuster is trained.

    Attributes:
        ledger: folder of a ledger with samples.
        out: file to write.
        trees: of a task, at most.
        leaves: of a tree.
        learning_rate: of the trees.
        patience: trees without an improvement after which no more are grown.
        seed: of LightGBM.
        without: features that trees do not look at, to see what they are worth.
    """

    ledger: str
    out: OutPath
    trees: Count = 200
    leaves: Few = 15
    learning_rate: Annotated[float, Number(above=0, at_most=1)] = 0.1
    patience: Count = 10
    seed: Seed = 0
    without: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse names of no feature."""
        super().__post_init__()
        if unknown := sorted(set(self.without) - set(FEATURES)):
            raise ConfigError(
                f"without: there is no feature {', '.join(unknown)}; an adjuster is told of "
                f"{', '.join(FEATURES)}."
            )


@dataclass(frozen=True)
class GapError:
    """Errors of the samples within a gap that were not learned from.

    Attributes:
        hours: most hours; None for any number.
        samples: n.
        stale: root mean square of stale − fresh over mean of |fresh|, averaged over tasks.
        adjusted: likewise of what the adjuster says.
    """

    hours: float | None
    samples: int
    stale: float
    adjusted: float


@dataclass(frozen=True)
class Distilled:
    """What came of it.

    Attributes:
        samples: n.
        tasks: number of trees of each; 0 for one that keeps its stale scores.
        gaps: errors, the shortest gap first, and that of all gaps last.
    """

    samples: int
    tasks: dict[str, int]
    gaps: tuple[GapError, ...]


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples of a ledger by time: stale and fresh scores [n, K], features [n, F]."""

    stale: NDArray[np.float32]
    fresh: NDArray[np.float32]
    features: NDArray[np.float32]

    def part(self, first: float, last: float) -> _Samples:
        rows = slice(round(first * len(self.stale)), round(last * len(self.stale)))
        return _Samples(self.stale[rows], self.fresh[rows], self.features[rows])

    def cached(self) -> Cached:
        return Cached(np.arange(len(self.stale)), self.stale, self.features)


def distil(config: AdjusterConfig) -> Distilled:
    """Train an adjuster and write its file.

    Raises:
        ConfigError: the file may not be replaced.
        DataError: the ledger has too few samples, or those of another release.
        InstallationError: there is no LightGBM.
    """
    out, ledger = Path(config.out), Path(config.ledger)
    check_file(out, _is_ours, [ledger])
    tasks = describe(ledger).tasks
    samples = _read(ledger, len(tasks))
    learned, stop = samples.part(0, _LEARNED), samples.part(_LEARNED, _STOPPED)
    both = [_trained(task, learned, stop, config) for task in range(len(tasks))]
    adjuster = Adjuster(tasks, [line for line, _ in both], [trees for _, trees in both])
    adjuster.save(out)
    grown = [0 if one is None else one.num_trees() for one in adjuster.trees]
    gaps = _errors(adjuster, samples.part(_STOPPED, 1))
    return Distilled(len(samples.stale), dict(zip(tasks, grown, strict=True)), gaps)


def _is_ours(path: Path) -> bool:
    try:
        read_adjuster(path)
    except ArtifactError:
        return False
    return True


def _read(ledger: Path, tasks: int) -> _Samples:
    rows = scan_ledger(ledger)
    there = set(SAMPLES) <= set(rows.collect_schema().names())
    found = rows.sort("moment").select(SAMPLES).collect() if there else None
    samples = 0 if found is None else int(found[SAMPLES[0]].list.len().sum()) // tasks
    if found is None or samples < _FEWEST:
        raise DataError(
            f"{ledger} has {samples:,} cached candidates that were scored freshly too, and an "
            f"adjuster needs {_FEWEST:,}: note one of a funnel with a cache and "
            "cache.sample_share=0.05, or more requests."
        )
    flat = [found[name].explode(empty_as_null=False).to_numpy() for name in SAMPLES]
    if len(flat[2]) != samples * len(FEATURES):
        raise DataError(
            f"{ledger} was written by another release, which told other features of cached "
            "candidates; note a new one."
        )
    return _Samples(*(one.reshape(samples, -1) for one in flat))


def _trained(
    task: int, learned: _Samples, stop: _Samples, config: AdjusterConfig
) -> tuple[Line, Any]:
    """Line and trees of a task; no trees where the stale scores are as good."""
    line = Line.fit(learned.stale[:, task], learned.fresh[:, task])
    sets = [
        {
            "data": inputs(line, part.stale[:, task], part.features),
            "label": np.ascontiguousarray(part.fresh[:, task]),
            "init_score": line.of(part.stale[:, task]),
        }
        for part in (learned, stop)
    ]
    trees = grow(
        config,
        "cross_entropy" if line.probability else "regression",
        sets,
        monotone_constraints=[1] + [0] * len(FEATURES),
        feature_contri=[1.0] + [float(name not in config.without) for name in FEATURES],
    )
    alone = Adjuster(("",), [line], [trees])
    one = Cached(np.arange(len(stop.stale)), stop.stale[:, [task]], stop.features)
    errors = [
        float(np.square(found - stop.fresh[:, task]).mean())
        for found in (alone(one)[:, 0], stop.stale[:, task])
    ]
    return line, trees if errors[0] < errors[1] else None


def _errors(adjuster: Adjuster, held_out: _Samples) -> tuple[GapError, ...]:
    gap, adjusted = held_out.cached().gap_hours, adjuster(held_out.cached())
    found = []
    for above, hours in zip((-1.0, *_GAPS[:-1], -1.0), (*_GAPS, np.inf), strict=True):
        inside = (gap > above) & (gap <= hours)
        if inside.any():
            fresh = held_out.fresh[inside]
            errors = (_relative(said[inside], fresh) for said in (held_out.stale, adjusted))
            most = None if np.isinf(hours) else hours
            found.append(GapError(most, int(inside.sum()), *errors))
    return tuple(found)


def _relative(said: NDArray[np.floating], fresh: NDArray[np.floating]) -> float:
    """Root mean square of the errors over the mean of the scores, averaged over tasks with any."""
    error = np.sqrt(np.square(said - fresh).mean(axis=0))
    size = np.abs(fresh).mean(axis=0)
    return float((error[size > 0] / size[size > 0]).mean())
