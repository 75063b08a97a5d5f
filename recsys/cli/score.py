"""`recsys score`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import UNDEFINED, message_console, output_console
from recsys.data.contract.moments import to_text
from recsys.data.stores.copies import with_local_folders
from recsys.distributed.processes import is_first_rank
from recsys.systems.score_pairs import ScoreConfig, ScoredPairs, score

#: Rows that are shown where they are not written.
_SHOWN = 20


def configure(overrides: Sequence[str]) -> ScoreConfig:
    """Compose conf/score.yaml."""
    return compose("score", ScoreConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Score the pairs, and print the first rows where they are not written."""
    config = with_local_folders(configure(overrides), "run_dir", "dataset")
    scored = score(config)
    if not is_first_rank():
        return
    if config.out is None:
        output_console().print(_table(scored))
    console = message_console()
    for line in _said(scored):
        console.print(line)
    if config.out is not None:
        console.print(f"Scores: {config.out}")


def _table(scored: ScoredPairs) -> Table:
    rows = scored.table.head(_SHOWN)
    shown = f", the first {len(rows)} of {len(scored.table):,}" * (len(rows) < len(scored.table))
    table = Table(title=f"Scored pairs{shown}")
    for name in rows.columns:
        table.add_column(name, justify="right" if name in scored.scores else "left")
    for row in rows.iter_rows():
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _said(scored: ScoredPairs) -> list[str]:
    table = scored.table
    without = table.select(pl.any_horizontal(pl.col(scored.scores).is_null()).sum()).item()
    lines = [
        f"Pairs: {len(table):,}; without a score: {without:,} (user not in the log: "
        f"{scored.unknown_users:,}; item unknown to log or model: {scored.unknown_items:,}). "
        f"Pairs without a moment are scored as of {to_text(scored.moment)}."
    ]
    return [*lines, *scored.remarks]
