"""`recsys evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.training.composition import compose
from recsys.training.evaluate import EvaluateConfig, evaluate
from recsys.training.load import load_config
from recsys.training.systems import system_named


def configure(overrides: Sequence[str]) -> EvaluateConfig:
    """Compose conf/evaluate.yaml."""
    return compose("evaluate", EvaluateConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Measure the run, write its metrics and print them."""
    config = configure(overrides)
    metrics = evaluate(config)
    system_named(load_config(Path(config.run_dir)).system).show(metrics, config)
