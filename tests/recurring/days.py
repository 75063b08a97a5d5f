"""A recurring training on a small log that is given day by day."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recsys.recurring.config import GateConfig, RecurConfig
from tests.evaluation.baselines.planted import HOUR

DAY = 24 * HOUR
FIRST_DAYS = 20
TINY = (
    "system=dv365",
    "slices=demo",
    "model.dimension=16",
    "trainer.max_steps=4",
    "trainer.progress_bar=false",
    "loader.batch_requests=16",
)


def configured(days: Path, folder: Path, **settings: object) -> RecurConfig:
    data = (
        "data=log",
        f"data.path={days / 'first.parquet'}",
        f"data.out={folder / 'prepared'}",
        "data.options.choose_days=1",
        "data.options.report_days=1",
        "data.options.attribution_hours=1",
    )
    gate = GateConfig(worse_percent=50, sampled_users=50)
    return RecurConfig(
        folder=str(folder / "recurring"), train=[*TINY, *data], gate=gate, **settings
    )


def next_day(config: RecurConfig, days: Path, number: int) -> RecurConfig:
    return replace(config, path=str(days / f"{number}.parquet"))
