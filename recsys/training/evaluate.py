"""`recsys evaluate`: the only reader of the report split."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from recsys.data.schema import Split
from recsys.errors import ConfigError
from recsys.evaluation.paired import Bootstrap
from recsys.training.load import load_run
from recsys.training.metrics_file import Metrics, replace_metrics
from recsys.training.systems import system_named

#: Metric names begin with the split's prefix.
PREFIXES = {Split.CHOOSE: "val", Split.REPORT: "report"}


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure.

    Attributes:
        run_dir: the run folder.
        against: another run on the same data set, usually the one without timelines.
        split: ``report``, or ``choose`` while a model is being developed.
        checkpoint: ``best``, ``last``, or a path. The other run is measured at its checkpoint of
            the same name, and at ``best`` where this is a path.
        dataset: the prepared data set, of both runs, where it was moved since the training.
        bootstrap: how intervals are made.
    """

    run_dir: str = MISSING
    against: str | None = None
    split: str = "report"
    checkpoint: str = "best"
    dataset: str | None = None
    bootstrap: Bootstrap = field(default_factory=Bootstrap)


def evaluate(config: EvaluateConfig) -> Metrics:
    """Predict the split, measure it and merge the metrics into ``metrics.json``.

    Raises:
        RecsysError: a run that cannot be loaded, or one that was not measured on the same rows.
    """
    if config.split not in PREFIXES:
        choices = " or ".join(PREFIXES)
        raise ConfigError(f"split={config.split} cannot be evaluated; choose {choices}.")
    run = load_run(config.run_dir, config.checkpoint, config.dataset)
    metrics = system_named(run.config.system).evaluate(run, config)
    replace_metrics(run.folder, f"{PREFIXES[Split(config.split)]}/", metrics)
    return metrics
