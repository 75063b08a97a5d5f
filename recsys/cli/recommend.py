"""`recsys recommend`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.data.contract.moments import to_text
from recsys.data.stores.copies import with_local_folders
from recsys.serving.recommend_users import RecommendConfig, RecommendReport
from recsys.systems.recommend import recommend


def configure(overrides: Sequence[str]) -> RecommendConfig:
    """Compose conf/recommend.yaml."""
    return compose("recommend", RecommendConfig, [_listed(o) for o in overrides])


def run(overrides: Sequence[str]) -> None:
    """Recommend, and print the rows where they are not written."""
    config = with_local_folders(configure(overrides), "run_dir", "artifact", "index", "dataset")
    report, rows = recommend(config)
    console = message_console()
    if config.out is None:
        _print(rows)
    else:
        console.print(f"Recommendations: {config.out}")
    for line in _said(config, report):
        console.print(line)


def _said(config: RecommendConfig, report: RecommendReport) -> list[str]:
    lines = [
        f"As of {to_text(report.as_of)}; users: {report.users:,}; without any item left: "
        f"{report.without_items:,}."
    ]
    if config.k > report.items:
        lines.append(f"k={config.k:,} items are asked for, and there are {report.items:,} in all.")
    if config.beam is not None and report.widest is not None and config.beam > report.widest:
        lines.append(
            f"beam={config.beam:,} nodes are to be kept, and no level has more than "
            f"{report.widest:,}: every item is scored."
        )
    if report.unknown_excluded:
        lines.append(f"Items of exclude= that there are not: {report.unknown_excluded:,}.")
    if report.unknown_only:
        lines.append(
            f"Items of only= that cannot be recommended, for the model or the index does not know "
            f"them: {report.unknown_only:,}."
        )
    if report.unknown_events:
        lines.append(
            f"Events of history= with an item that the log does not have: "
            f"{report.unknown_events:,}; they are not looked at."
        )
    if report.others_events:
        lines.append(
            f"Events of history= of users who are not asked for: {report.others_events:,}; leave "
            "user= and users= out to recommend for everybody in the file."
        )
    if report.ignored_events:
        lines.append(
            f"Events of history= with an action that the log's description ignores: "
            f"{report.ignored_events:,}; they are left out."
        )
    return lines


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
