"""The next parameters by Bayesian optimisation with constraints (Gardner et al. 2014)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from recsys.core.errors import InstallationError
from recsys.core.installation import extra_command
from recsys.online.tuning.config import TuningConfig
from recsys.online.tuning.space import Parameter, Space, Values
from recsys.online.tuning.trials import Trial

try:
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
except ModuleNotFoundError as error:
    raise InstallationError(
        f"a tuning needs the package {error.name}; {extra_command('tune')} brings it."
    ) from error


def propose(space: Space, trials: Sequence[Trial], tuning: TuningConfig, seed: int) -> Values:
    """What is to be tried after some trials: the same after the same trials, killed or not.

    Gaussian processes of the goal and of each constraint give the expected improvement on the best
    feasible trial, times the probability of being feasible.

    Args:
        space: the parameters.
        trials: those before, the funnel as it is among them; what is not defined is left out.
        tuning: goal and constraints.
        seed: of the search for the highest improvement.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.GPSampler(seed=seed + len(trials), n_startup_trials=1)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    distributions = {one.name: _distribution(one) for one in space.parameters}
    for trial in trials:
        if not trial.is_defined(tuning):
            continue
        known = optuna.trial.create_trial(
            value=trial.goal(tuning), params=dict(trial.parameters), distributions=distributions
        )
        for name, violation in trial.violations(tuning).items():
            known.set_constraint(name, violation)
        study.add_trial(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fit of the Gaussian processes
        return dict(study.ask(distributions).params)


def _distribution(of: Parameter) -> BaseDistribution:
    if of.whole:
        return IntDistribution(int(of.low), int(of.high))
    return FloatDistribution(of.low, of.high)
