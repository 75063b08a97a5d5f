"""A small log of text ids with a run of each system, trained when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.systems.choice import compose_run
from recsys.systems.runs import train

DAY = 86_400_000
START = 1_714_521_600_000  # 2024-05-01
USERS, ITEMS, EVENTS = 40, 60, 2_400
#: First seen after the fit period, so that no model has learned it.
LATE = "late"

#: Settings of a run of a few seconds.
SETTINGS = {
    "dv365": ("model.dimension=8", "trainer.max_steps=4"),
    "ranker": ("model.net.dimension=8", "trainer.max_steps=4", "loader.max_events=12"),
    "hsnn": (
        "model.net.dimension=8",
        "model.net.levels=[{codes:4,size:S},{codes:3,size:XS}]",
        "trainer.max_steps=4",
        "loader.max_events=12",
        "descent.beam=100",  # all nodes: what it finds is the best of all
    ),
    "sequence": ("loader.batch_size=16", "trainer.max_epochs=2", "model.width=8"),
    "nxtpost": ("loader.batch_size=16", "trainer.max_epochs=1"),
    "two_tower": ("loader.batch_size=16", "trainer.max_epochs=2", "model.items.width=8"),
    "wide_and_deep": ("loader.batch_size=16", "trainer.max_epochs=2", "model.width=8"),
}

#: The run folder of a system.
RunOf = Callable[[str], Path]


def small_log() -> pl.DataFrame:
    """Users ``u1`` … see items ``i1`` … in the order of time; half of the events are clicks."""
    generator = np.random.default_rng(5)
    user = generator.integers(1, USERS + 1, EVENTS)
    item = (user * 7 + generator.integers(0, 30, EVENTS)) % ITEMS + 1
    names = [f"i{number}" for number in item[:-8]] + [LATE] * 8
    return pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in user],
            "item_id": names,
            "timestamp": START + np.linspace(0, 30 * DAY, EVENTS).astype(np.int64),
            "action_type": generator.choice(["impression", "click"], EVENTS),
            "surface": generator.choice(["feed", "search"], EVENTS),
            "dwell_time": generator.exponential(20, EVENTS).astype(np.float32),
        }
    )


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """Trains a system on the log, once."""
    folder = tmp_path_factory.mktemp("own_log")
    small_log().write_parquet(folder / "log.parquet")
    names = [f"i{number}" for number in range(1, ITEMS + 1)] + [LATE]
    vectors = np.random.default_rng(6).standard_normal((len(names), 8)).astype(np.float32)
    np.savez(folder / "posts.npz", item_id=np.array(names), embedding=vectors)

    def trained(system: str) -> Path:
        run_dir = folder / "runs" / system
        if not run_dir.exists():
            settings = [*SETTINGS[system], "trainer.progress_bar=false", f"run_dir={run_dir}"]
            if system == "nxtpost":
                settings.append(f"posts.path={folder / 'posts.npz'}")
            data = (f"data.path={folder / 'log.parquet'}", f"data.out={folder / 'prepared'}")
            train(compose_run([f"system={system}", "data=log", *data, *settings]))
        return run_dir

    return trained
