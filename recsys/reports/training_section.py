"""The section of a report that shows a training: its loss, and what picked the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from recsys.reports import figures
from recsys.reports.page import Section

_LOSS = "train/loss"


def training(runs: Mapping[str, pl.DataFrame], metric: str, label: str, note: str) -> Section:
    """Curves by step; of what was measured a few times the numbers.

    Args:
        runs: per name the log of a run, as ``read_metrics`` returns it.
        metric: what picks checkpoints, by its name in the logs.
        label: what it is called.
        note: how a checkpoint is chosen.
    """
    panels: dict[str, dict[str, pl.DataFrame]] = {}
    facts: dict[str, str] = {}
    for what, name in ((("training loss", _LOSS)), (label, metric)):
        for run, log in runs.items():
            values = log.filter(pl.col("metric") == name).sort("step").select("step", "value")
            if len(values) > figures.FEW_POINTS:
                panels.setdefault(what, {})[run] = values
            elif len(values):
                who = f"{what}, {run}" if len(runs) > 1 else what
                facts[who] = "; ".join(
                    f"{value:.4f} at step {step:,}" for step, value in values.iter_rows()
                )
    figure = figures.curves(panels) if panels else ""
    return Section("Training", note=note, figure=figure, facts=facts)
