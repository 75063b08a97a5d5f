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
    return compose("recommend", RecommendConfig, [_users_as_typed(o) for o in overrides])


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


def _users_as_typed(override: str) -> str:
    """``user=42`` and ``user=[42,a b]`` as lists of text: 1e5 is an id and not 100000.0."""
    key, _, value = override.partition("=")
    if key != "user" or value == "null":
        return override
    ids = value.removeprefix("[").removesuffix("]").split(",")
    quoted = (one.strip().replace("\\", "\\\\").replace("'", "\\'") for one in ids)
    return "user=[" + ",".join(f"'{one}'" for one in quoted) + "]"
