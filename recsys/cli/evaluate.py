"""`recsys evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.training.composition import compose
from recsys.training.evaluate import EvaluateConfig, evaluate
from recsys.training.tables import print_evaluation


def configure(overrides: Sequence[str]) -> EvaluateConfig:
    """Compose conf/evaluate.yaml."""
    return compose("evaluate", EvaluateConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Measure the run, write its metrics and print them."""
    config = configure(overrides)
    print_evaluation(evaluate(config), config)
