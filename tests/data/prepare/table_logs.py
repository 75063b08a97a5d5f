"""A log and tables of its items and users, for the tests of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset

START = 1_700_000_000_000
HOUR = 3_600_000


def log_frame(rows: int = 200, items: int = 10, first_hour: int = 0) -> pl.DataFrame:
    """Item ``i`` is first seen in hour ``i``; every hour has one event, of user ``hour % 5``."""
    hour = np.arange(first_hour, first_hour + rows)
    return pl.DataFrame(
        {
            "user_id": [f"u{h % 5}" for h in hour],
            "item_id": hour % items,
            "timestamp": START + hour * HOUR,
            "action_type": ["impression" if h % 3 else "click" for h in hour],
        }
    )


def prepared(folder: Path, log: str = "log.parquet", **options: Any) -> PreparedDataset:
    for table in ("items", "users"):
        if "path" in options.get(table, {}):
            options[table] = options[table] | {"path": str(folder / options[table]["path"])}
    is_later = options.pop("is_later", False)
    out = str(folder / options.pop("out", "out"))
    settings = {"path": str(folder / log), "out": out, "partitions": 2, "options": options}
    if is_later:
        append(AppendConfig(**settings))
    else:
        prepare(PrepareConfig(**settings))
    return PreparedDataset.open(out)
