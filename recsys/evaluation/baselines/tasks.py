"""Baselines of systems that predict tasks, fitted on the fit rows, on the rows of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.console import message_console
from recsys.core.installation import extra_command
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.baselines import boosting
from recsys.evaluation.baselines.config import BOOSTED_COUNTS, TASK_BASELINES, BoostingConfig
from recsys.evaluation.baselines.means import PRIOR_ROWS, FitMeans
from recsys.evaluation.baselines.rows import AUTHOR, ITEM, TOPIC, USER, Rows

#: By name the group whose mean predicts.
_GROUPS = {
    "user_mean": USER,
    "item_mean": ITEM,
    "user_author_mean": "user_author",
    "user_topic_mean": "user_topic",
}
#: Ids that a log may do without, by the baseline that needs them.
_NEEDED = {"user_author_mean": AUTHOR, "user_topic_mean": TOPIC}


@dataclass(frozen=True, eq=False)
class Beside:
    """What baselines say of the rows of a split.

    Attributes:
        predictions: by baseline [R, K] float64, rows in order of ``row_id``.
        how: by baseline how it was fitted, for the protocol of its metrics.
    """

    predictions: dict[str, NDArray[np.float64]]
    how: dict[str, str]


def predict_baselines(
    dataset: PreparedDataset,
    split: Split,
    gap_ms: int,
    names: Sequence[str],
    config: BoostingConfig,
) -> Beside:
    """What baselines say of every row of a split.

    Those that need ids that the log does not have are left out; LightGBM, where it is not
    installed, with a line that says how to get it.

    Args:
        dataset: the prepared data set.
        split: ``choose`` or ``report``.
        gap_ms: between what a model's histories hold and a request.
        names: of :data:`TASK_BASELINES`.
        config: of LightGBM.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if not names:
        return Beside({}, {})
    rows, fit = Rows.of(dataset, split), Rows.of(dataset, Split.FIT)
    means = FitMeans(fit, dataset.manifest.vocabulary_sizes)
    for name in TASK_BASELINES:
        if name not in names or not _has_ids(dataset, name):
            continue
        if name == BOOSTED_COUNTS:
            if not boosting.is_installed():
                message_console().print(
                    f"{TASK_BASELINES[name]} is left out, for lightgbm is not installed: "
                    f"{extra_command(boosting.EXTRA)} installs it, baselines= leaves it out."
                )
                continue
            found[name] = boosting.boosted_counts(dataset, split, gap_ms, config)
        elif name in _GROUPS:
            found[name] = means.by(_GROUPS[name], rows)
        else:
            found[name] = means.all_rows(rows)
    return Beside(found, {name: _how_fitted(name, len(fit), config) for name in found})


def _how_fitted(name: str, fit_rows: int, config: BoostingConfig) -> str:
    """How a baseline's predictions were made, for the protocol of its metrics."""
    if name == BOOSTED_COUNTS:
        trained = f"{fit_rows:,} fit rows"
        if fit_rows > config.rows:
            trained = f"{config.rows:,} of {trained}, drawn evenly over time"
        return (
            f"LightGBM on counts known before each request less the gap, trained on {trained}; "
            f"trees stopped on the choose rows, seed {config.seed}"
        )
    if name == "fit_mean":
        return f"mean of {fit_rows:,} fit rows"
    prior = "the user's mean" if name in _NEEDED else "the mean of all"
    return (
        f"mean of the fit rows of the same {_GROUPS[name].replace('_', ' and ')}, towards {prior} "
        f"by {PRIOR_ROWS} rows"
    )


def _has_ids(dataset: PreparedDataset, name: str) -> bool:
    needed = _NEEDED.get(name)
    return needed is None or dataset.manifest.vocabulary_sizes[needed] > 1
