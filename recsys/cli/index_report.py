"""`recsys index report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from recsys.core.composition import compose
from recsys.core.console import output_console, text_table
from recsys.index.hierarchy.report import IndexReportConfig, TreeReport, report_tree


def configure(overrides: Sequence[str]) -> IndexReportConfig:
    """Compose conf/index_report.yaml."""
    return compose("index_report", IndexReportConfig, overrides)


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Print a table of the levels, and what is astray."""
    report = report_tree(configure(overrides))
    console = output_console()
    console.print(text_table(f"{report.items:,} items", _rows(report)))
    for sentence in _said(report):
        console.print(sentence)
    if as_object:
        console.print(json.dumps(asdict(report)))


def _rows(report: TreeReport) -> list[list[str]]:
    moved = [] if report.changes is None else report.changes.moved
    head = ["level", "nodes", "with items", "entropy", "largest / mean", "largest"]
    rows = [[*head, "changed node"] if moved else head]
    for number, level in enumerate(report.levels):
        row = [
            str(number + 1),
            f"{level.possible:,}",
            f"{level.used:,}",
            f"{level.entropy:.3f}",
            f"{level.largest_over_mean:.2f}",
            f"{level.largest_share:.1%}",
        ]
        rows.append([*row, *(f"{one:,}" for one in moved[number : number + 1])])
    return rows


def _said(report: TreeReport) -> list[str]:
    lines = [
        f"Level {number} has collapsed: {level.largest_share:.0%} of the items are in one of its "
        f"{level.possible:,} nodes."
        for number, level in enumerate(report.levels, 1)
        if level.has_collapsed
    ]
    lines += [
        f"Items whose features now belong to another node: {report.misplaced:,}.",
        f"Items of the log in no node: {report.not_in_tree:,}, {report.new:,} of them new since "
        "items were added last.",
        f"Items in the tree that the log does not have: {report.not_in_log:,}.",
    ]
    changes = report.changes
    if changes is not None:
        how = "by their codes" if changes.same_networks else "by the items that they share"
        lines.append(
            f"Items in both: {changes.common:,}; came: {changes.came:,}; went: {changes.went:,}; "
            f"nodes are compared {how}."
        )
    return lines
