"""Training a prefetcher from the opens of a ledger: who visited, and how long they waited.

Legend: n opens, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from recsys.core.bounds import Count, Few, Number, OutPath, Seed, Settings
from recsys.core.errors import ArtifactError, DataError
from recsys.core.folders import check_file
from recsys.data.contract.ledger import OPENED_AT, OPENS_FILE, PLAYED, VISITED_AT, WAIT_MS
from recsys.data.contract.parquet import scan_parquet
from recsys.data.simulator.world.play_files import kinds_of_users
from recsys.serving.funnel.boosting import grow
from recsys.serving.funnel.prefetch.habits import FEATURES, NAMES
from recsys.serving.funnel.prefetch.prefetcher import Prefetcher, read_prefetcher

#: Opens by time: the first are learned from, then it is seen when to stop, then how good it is.
_LEARNED, _STOPPED = 0.7, 0.8
#: Fewer opens teach nothing.
_FEWEST = 500

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class PrefetcherConfig(Settings):
    """How a prefetcher is trained.

    Attributes:
        ledger: folder of a ledger of ``recsys online``.
        out: file to write.
        trees: of a model, at most.
        leaves: of a tree.
        learning_rate: of the trees.
        patience: trees without an improvement after which no more are grown.
        seed: of LightGBM.
    """

    ledger: str
    out: OutPath
    trees: Count = 300
    leaves: Few = 15
    learning_rate: Annotated[float, Number(above=0, at_most=1)] = 0.05
    patience: Count = 20
    seed: Seed = 0


@dataclass(frozen=True)
class Trained:
    """What came of it, on the last opens, which were not learned from.

    Attributes:
        opens: n in all.
        measured: n of the last ones.
        visited: share of them that became visits, and ``expected``, what was expected.
        expected: mean probability.
        auc: of the probability.
        entropy: normalised cross-entropy: 1 for a constant.
        waits: visits among them whose wait is known.
        error: root mean square of ln(wait) − what is expected of it; None without waits.
        spread: standard deviation of ln(wait): the error of a constant; None without waits.
    """

    opens: int
    measured: int
    visited: float
    expected: float
    auc: float
    entropy: float
    waits: int
    error: float | None
    spread: float | None


def train_prefetcher(config: PrefetcherConfig) -> Trained:
    """Train both models and write their file.

    Raises:
        ConfigError: the file may not be replaced.
        DataError: the ledger has too few opens, or those of another release.
        InstallationError: there is no LightGBM.
    """
    out, ledger = Path(config.out), Path(config.ledger)
    check_file(out, _is_ours, [ledger])
    opens = _read(ledger)
    features = opens.select(FEATURES).to_numpy()
    visited = opens[VISITED_AT].is_not_null().to_numpy()
    wait = np.log(opens[WAIT_MS].fill_null(np.nan).to_numpy())
    last = np.arange(len(opens)) >= round(_STOPPED * len(opens))
    known = np.isfinite(wait)
    waits = _grown(features[known], wait[known], "regression", config)
    visits = _grown(features, visited.astype(np.float64), "binary", config)
    found = Prefetcher(visits, waits, kinds_of_users(ledger / PLAYED))
    found.save(out)
    p, y = found.visit_probability(features[last]), visited[last]
    error = spread = None
    if waits is not None and (last & known).any():
        rows = last & known
        error = float(np.sqrt(np.square(np.log(found.wait_ms(features[rows])) - wait[rows]).mean()))
        spread = float(wait[rows].std())
    return Trained(
        opens=len(opens),
        measured=int(last.sum()),
        visited=float(y.mean()),
        expected=float(p.mean()),
        auc=_auc(p, y),
        entropy=_entropy(p, y) / _entropy(np.full(len(y), y.mean()), y),
        waits=int((last & known).sum()),
        error=error,
        spread=spread,
    )


def _is_ours(path: Path) -> bool:
    try:
        read_prefetcher(path)
    except ArtifactError:
        return False
    return True


def _read(ledger: Path) -> pl.DataFrame:
    """The opens, by time."""
    file = ledger / PLAYED / OPENS_FILE
    if not file.is_file():
        raise DataError(
            f"{ledger} has no openings of the app ({PLAYED}/{OPENS_FILE}); note one with `recsys "
            "online … ledger=<a new folder>`."
        )
    opens = scan_parquet([file])
    if missing := set(FEATURES) - set(opens.collect_schema().names()):
        raise DataError(
            f"{file} was written by another release, which said nothing of "
            f"{', '.join(sorted(missing))}; note a new ledger."
        )
    found = opens.sort(OPENED_AT).collect()
    visited = found[VISITED_AT].is_not_null().sum()
    if len(found) < _FEWEST or not 0 < visited < len(found):
        raise DataError(
            f"{ledger} has {len(found):,} openings of the app, {visited:,} with a visit, and a "
            f"prefetcher needs {_FEWEST:,}, with a visit and without; note more users or days."
        )
    return found


def _grown(
    features: NDArray[np.float32], target: Doubles, objective: str, config: PrefetcherConfig
) -> Any | None:
    """Trees of rows by time, of which the last ones are not looked at; None without rows."""
    learned, stop = round(_LEARNED * len(target)), round(_STOPPED * len(target))
    if not 0 < learned < stop:
        return None
    names = [FEATURES.index(name) for name in NAMES]
    sets = [
        {"data": features[rows], "label": target[rows], "categorical_feature": names}
        for rows in (slice(0, learned), slice(learned, stop))
    ]
    return grow(config, objective, sets)


def _auc(p: Doubles, y: NDArray[np.bool_]) -> float:
    """How often a visit is held more likely than none."""
    positive = int(y.sum())
    pairs = positive * (len(y) - positive)
    below = rankdata(p)[y].sum() - positive * (positive + 1) / 2
    return float(below / pairs) if pairs else float("nan")


def _entropy(p: Doubles, y: NDArray[np.bool_]) -> float:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-np.where(y, np.log(p), np.log1p(-p)).mean())
