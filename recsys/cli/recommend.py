"""`recsys recommend`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.data.contract.moments import to_text
from recsys.serving.recommend_users import RecommendConfig, recommend


def configure(overrides: Sequence[str]) -> RecommendConfig:
    """Compose conf/recommend.yaml."""
    return compose("recommend", RecommendConfig, [_listed(o) for o in overrides])


def run(overrides: Sequence[str]) -> None:
    """Recommend, and print the rows where they are not written."""
    config = configure(overrides)
    report, rows = recommend(config)
    console = message_console()
    if config.out is None:
        _print(rows)
    else:
        console.print(f"Recommendations: {config.out}")
    console.print(
        f"As of {to_text(report.as_of)}; users: {report.users:,}; without any item left: "
        f"{report.without_items:,}."
    )
    if report.unknown_left_out:
        console.print(
            f"Items of leave_out= that the index does not have: {report.unknown_left_out:,}."
        )


def _print(rows: pl.DataFrame) -> None:
    table = Table(*rows.columns, title="Recommended items")
    for row in rows.iter_rows(named=True):
        row["score"] = f"{row['score']:.3f}"
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    output_console().print(table)


def _listed(override: str) -> str:
    """``user=42`` as the list of one user that it means."""
    key, _, value = override.partition("=")
    one = key == "user" and value != "null" and not value.startswith("[")
    return f"user=[{value}]" if one else override
