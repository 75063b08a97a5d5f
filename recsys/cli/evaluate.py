"""`recsys evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.data.stores.copies import with_local_folders
from recsys.distributed.processes import is_first_rank
from recsys.evaluation.config import EvaluateConfig
from recsys.systems.choice import system_of_run
from recsys.systems.evaluate import evaluate


def configure(overrides: Sequence[str]) -> EvaluateConfig:
    """Compose conf/evaluate.yaml."""
    return compose("evaluate", EvaluateConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Measure the run, write its metrics and print them."""
    config = with_local_folders(configure(overrides), "run_dir", "against", "dataset")
    metrics = evaluate(config)
    if is_first_rank():
        system_of_run(config.run_dir).show(metrics, config)
