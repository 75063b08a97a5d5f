"""A run with timelines and one without, evaluated against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.core.composition import compose
from recsys.evaluation.baselines.config import BoostingConfig
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.paired import Bootstrap
from recsys.nn.encoders import EncoderConfig
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import train
from tests.small_runs import TINY_RUN

BOOTSTRAP = Bootstrap(resamples=50)


def asked(run_dir: str, against: str | None = None, **settings: Any) -> EvaluateConfig:
    """An evaluation beside one baseline that takes no time."""
    return EvaluateConfig(run_dir, against, baselines=["user_mean"], **settings)


def evaluated_runs(folder: Path, data_overrides: tuple[str, ...]) -> tuple[Path, Path]:
    """Train and evaluate them in a folder."""
    config = compose("train", DV365RunConfig, [*TINY_RUN, *data_overrides])
    with_timelines = train(replace(config, run_dir=str(folder / "with")))
    baseline = replace(config, encoder=EncoderConfig(name="none"))
    without = train(replace(baseline, run_dir=str(folder / "without")))
    boosting = BoostingConfig(trees=5, rows=2000)
    evaluate(
        EvaluateConfig(str(with_timelines), str(without), bootstrap=BOOTSTRAP, boosting=boosting)
    )
    return with_timelines, without
