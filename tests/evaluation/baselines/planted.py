"""Logs whose labels say who may know them, prepared as a user's own log is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset

HOUR = 3_600_000
USERS, ITEMS, AUTHORS, DAYS = 150, 60, 12, 30
START = 1_700_006_400_000  # midnight, UTC


def own_log(likes: np.ndarray, shown: pl.DataFrame) -> pl.DataFrame:
    """Impressions, and a like a second after those that ``likes`` [R] marks."""
    liked = shown.filter(pl.Series(likes)).with_columns(
        pl.col("timestamp") + 1000, action_type=pl.lit("liked")
    )
    return pl.concat([shown.with_columns(action_type=pl.lit("impression")), liked])


def impressions(seed: int) -> pl.DataFrame:
    """Twice a day every user is shown three items, a minute apart."""
    draw = np.random.default_rng(seed)
    sessions = np.arange(USERS * DAYS * 2)
    user = np.repeat(sessions % USERS, 3)
    moment = np.repeat(sessions // USERS, 3) * 12 * HOUR + draw.integers(0, HOUR, len(user))
    item = draw.integers(0, ITEMS, len(user))
    return pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "author_id": item % AUTHORS,
            "timestamp": START + moment,
        }
    )


def prepared(log: pl.DataFrame, folder: Path, attribution_hours: float = 1) -> PreparedDataset:
    """The log as a data set; an action counts for an impression an hour before it at most."""
    options = {"attribution_hours": attribution_hours, "choose_fraction": 0.2}
    prepare(PrepareConfig(name="planted", out=str(folder), options=options), frame=log)
    return PreparedDataset.open(folder)
