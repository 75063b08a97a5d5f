"""wandb's own search algorithms: which trial comes next, and which are stopped.

They are those of the package ``sweeps``, which Weights & Biases runs on its servers.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.core.errors import InstallationError
from recsys.studies.sweep.trials import Trial, TrialState

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to its own developers
        import sweeps
        from sweeps.params import HyperParameterSet
except ModuleNotFoundError as error:
    raise InstallationError(
        f"a sweep needs the package {error.name}; `python -m recsys.install` brings it."
    ) from error

METHODS = ("grid", "random", "bayes")

_STATES = {
    TrialState.BEGUN: sweeps.RunState.running,
    TrialState.FINISHED: sweeps.RunState.finished,
    TrialState.STOPPED: sweeps.RunState.killed,
    TrialState.DIVERGED: sweeps.RunState.failed,
    TrialState.FAILED: sweeps.RunState.failed,
}


def violations(content: Mapping[str, Any]) -> list[str]:
    """Where a sweep does not fit wandb's schema, a phrase each."""
    try:
        found = sweeps.schema_violations_from_proposed_config(dict(content))
    except ValueError as error:
        found = [str(error)]
    return list(dict.fromkeys(one.rstrip(".") for one in found))


def middle_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The median of every parameter's distribution."""
    return {
        one.name: _plain(one.ppf(0.5)) for one in HyperParameterSet.from_config(dict(parameters))
    }


def ends(parameters: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The least and the largest value of every distribution; of one without an end, neither."""
    found = {}
    for one in HyperParameterSet.from_config(dict(parameters)):
        if not any(key in parameters[one.name] for key in ("value", "values")):
            has_ends = all(math.isfinite(one.ppf(share)) for share in (0.0, 1.0))
            # of whole numbers the share 0 is below the least
            values = [_plain(one.ppf(share)) for share in (1e-12, 1.0)]
            found[one.name] = values if has_ends else []
    return found


def suggest(content: Mapping[str, Any], trials: Sequence[Trial]) -> dict[str, Any] | None:
    """The parameters of the next trial, or None where all points of a grid were tried.

    The search draws from Python's and NumPy's generators; seeded by the number of trials, it draws
    the same in a sweep that is started again.
    """
    random.seed(len(trials))
    np.random.seed(len(trials))
    run = sweeps.next_run(dict(content), [_as_run(content, trial) for trial in trials])
    if run is None:
        return None
    return {name: _plain(one["value"]) for name, one in run.config.items()}


def to_stop(content: Mapping[str, Any], trials: Sequence[Trial]) -> set[str]:
    """Names of the running trials that ``early_terminate`` stops (Hyperband, Li et al., 2018).

    Its iterations are the validations of a trial.
    """
    if "early_terminate" not in content:
        return set()
    runs = [_as_run(content, trial) for trial in trials]
    return {run.name for run in sweeps.stop_runs(dict(content), runs)}


def _as_run(content: Mapping[str, Any], trial: Trial) -> sweeps.SweepRun:
    metric = content["metric"]["name"]
    return sweeps.SweepRun(
        name=trial.name,
        state=_STATES[trial.state],
        config={name: {"value": value} for name, value in trial.parameters.items()},
        history=[{metric: value} for value in trial.history],
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
