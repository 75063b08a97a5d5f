"""A small simulated world as a data set that a service can be started on."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.cli.main import invoke

_SIMULATION = (
    "simulator=explore_small",
    "simulator.users=80",
    "simulator.activity.scale=0.05",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=120",
)


def prepare(folder: Path) -> Path:
    """The data set of a new log in a folder."""
    assert invoke(["data", "simulate", *_SIMULATION, f"out={folder / 'log'}"]) == 0
    prepared = folder / "prepared"
    asked = ["data=simulated", f"path={folder / 'log'}", f"out={prepared}"]
    assert invoke(["data", "prepare", *asked]) == 0
    return prepared


def events_of(prepared: Path) -> pl.DataFrame:
    """The log that was prepared, a row per event."""
    return pl.read_parquet(prepared.parent / "log" / "log" / "*.parquet")
