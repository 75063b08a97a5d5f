"""The log of the tests, in files of a day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.evaluation.baselines.planted import START, impressions, own_log
from tests.recurring.days import DAY, FIRST_DAYS


@pytest.fixture(scope="session")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of twenty days, and files of a day each behind it."""
    folder = tmp_path_factory.mktemp("days")
    shown = impressions(0)
    likes = np.random.default_rng(1).random(len(shown)) < 0.3
    log = own_log(likes, shown).with_columns(author_id=pl.col("item_id") % 12)
    day = (pl.col("timestamp") - START) // DAY
    log.filter(day < FIRST_DAYS).write_parquet(folder / "first.parquet")
    for number in range(FIRST_DAYS, FIRST_DAYS + 4):
        log.filter(day == number).write_parquet(folder / f"{number}.parquet")
    return folder
