"""Boosted trees of LightGBM, on one thread: the light models beside a funnel's stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from recsys.core.errors import InstallationError
from recsys.core.installation import extra_command

#: The extra of the installation that brings LightGBM.
_EXTRA = "boosting"


class Growth(Protocol):
    """How trees are grown; what the settings of each model have."""

    @property
    def trees(self) -> int:
        """How many, at most."""

    @property
    def leaves(self) -> int:
        """Of a tree."""

    @property
    def learning_rate(self) -> float:
        """Of the trees."""

    @property
    def patience(self) -> int:
        """Trees without an improvement after which no more are grown."""

    @property
    def seed(self) -> int:
        """Of LightGBM."""


def grow(
    growth: Growth, objective: str, sets: Sequence[Mapping[str, Any]], **parameters: Any
) -> Any:
    """A booster, the same on every machine.

    Args:
        growth: how trees are grown.
        objective: in LightGBM's words.
        sets: the arguments of two of its data sets, of which the second says when to stop.
        parameters: others of LightGBM.

    Raises:
        InstallationError: it is not installed.
    """
    boosting = lightgbm()
    parameters |= {
        "objective": objective,
        "learning_rate": growth.learning_rate,
        "num_leaves": growth.leaves,
        "max_bin": 63,
        "seed": growth.seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
    learned, stop = (boosting.Dataset(**one, params=parameters) for one in sets)
    patience = boosting.early_stopping(growth.patience, verbose=False)
    return boosting.train(
        parameters, learned, growth.trees, valid_sets=[stop], callbacks=[patience]
    )


def lightgbm() -> Any:
    """The module.

    Raises:
        InstallationError: it is not installed.
    """
    try:
        # an extra of the installation
        import lightgbm
    except ImportError as error:
        raise InstallationError(
            f"Boosted trees need lightgbm, which is not installed: {extra_command(_EXTRA)} "
            "installs it."
        ) from error
    return lightgbm
