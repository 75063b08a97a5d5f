"""What is printed, and what the report shows, of a run of HSNN."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.flops import FLOPS_PER_QUERY, PAIRS_SCORED
from recsys.evaluation.metrics_file import Metrics, is_defined
from recsys.index.hierarchy.tree import LevelHealth
from recsys.nn.hierarchy.nodes import LEARNERS
from recsys.reports import figures
from recsys.reports.page import Page, Section
from recsys.reports.task_material import TaskMaterial, read_material
from recsys.reports.task_page import task_page
from recsys.runs.load import load_config
from recsys.runs.metrics_log import read_metrics
from recsys.systems.hsnn.config import HsnnRunConfig
from recsys.systems.hsnn.measure import EXACT
from recsys.systems.hsnn.nodes_file import read_occupancy

#: Columns of the table of beams, and of the table of levels.
_BEAM = re.compile(r"beam_(\d+)")
_COST = (
    (PAIRS_SCORED, "{:,.0f}", 1.0),
    ("share_scored", "{:.1f}", 100.0),
    (FLOPS_PER_QUERY, "{:,.2f}", 1e-6),
)
_HEALTH = {
    "possible": ("possible nodes", "{:,.0f}"),
    "used": ("with items", "{:,.0f}"),
    "entropy": ("entropy", "{:.3f}"),
    "largest_over_mean": ("largest over mean", "{:.1f}"),
    "largest_share": ("share of the largest", "{:.3f}"),
}


def print_descent(metrics: Metrics, config: EvaluateConfig) -> None:
    """Print what descents find, and how even the nodes are."""
    console = output_console()
    console.print(text_table("what a descent finds", descent_rows(metrics, config.prefix)))
    if len(levels := level_rows(metrics, config.prefix)) > 1:
        console.print(text_table("nodes", levels))


def descent_rows(metrics: Metrics, prefix: str) -> list[list[str]]:
    """A row for every item scored, one per beam, and one per untrained scorer."""
    within = [name.removeprefix(f"{prefix}/").split("/") for name in metrics]
    of_ranks = [one for one in within if len(one) == 3 and one[-1] == "all"]
    measured = dict.fromkeys(metric for place, metric, _ in of_ranks if place == EXACT)
    places = dict.fromkeys(place for place, metric, _ in of_ranks if metric in measured)
    recalls = dict.fromkeys(
        one[1] for one in within if len(one) == 2 and one[1].startswith("recall@")
    )
    rows = [["", "pairs scored", "% of items", "MFLOPs a query", *recalls, *measured]]
    for place in places:
        beam = _BEAM.fullmatch(place)
        called = {EXACT: "every item"}.get(place, f"beam {beam[1]}" if beam else place)
        row = [called]
        row += [
            _shown(metrics, f"{prefix}/{place}/{name}", form, scale) for name, form, scale in _COST
        ]
        row += [_shown(metrics, f"{prefix}/{place}/{name}", "{:.4f}") for name in recalls]
        row += [_shown(metrics, f"{prefix}/{place}/{name}/all", "{:.4f}") for name in measured]
        rows.append(row)
    return rows


def level_rows(metrics: Metrics, prefix: str) -> list[list[str]]:
    """How even the nodes of each level are."""
    rows = [["level", *(heading for heading, _ in _HEALTH.values())]]
    number = 1
    while f"{prefix}/level_{number}/used" in metrics:
        place = f"{prefix}/level_{number}"
        cells = [_shown(metrics, f"{place}/{name}", form) for name, (_, form) in _HEALTH.items()]
        rows.append([str(number), *cells])
        number += 1
    return rows


def _shown(metrics: Metrics, name: str, form: str, scale: float = 1) -> str:
    value = metrics.get(name, {}).get("value")
    if name not in metrics:
        return ""
    return form.format(scale * value) if is_defined(value) else UNDEFINED


def report_page(folder: Path, against: Path | None, dataset_folder: str | None) -> Page:
    """The page and the table a run ends with.

    Args:
        folder: the run folder.
        against: the folder of the run it was evaluated against.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: a folder is no run, a file of it is damaged, or the run was not evaluated
            against what lies in ``against`` now.
    """
    config = load_config(folder, HsnnRunConfig)
    labels = (str(folder), "" if against is None else str(against))
    material = read_material(folder, against, labels, config, dataset_folder)
    rows, levels = (of(material.metrics, material.prefix) for of in (descent_rows, level_rows))
    own = []
    if len(rows) > 1:
        own.append(Section("What a descent finds", note=_DESCENT, rows=rows))
    if len(levels) > 1:
        own.append(_nodes(material, levels))
    own += _nodes_in_training(folder, len(config.model.net.levels))
    return task_page(material, "HSNN", f"hsnn ({made_of(config)})", described(config), own)


def _nodes(material: TaskMaterial[HsnnRunConfig], rows: list[list[str]]) -> Section:
    """How many items are in the nodes; what has collapsed stands first."""
    mend = LEARNERS[material.config.model.net.index.method].against_collapse
    found = {
        number: _health(material.metrics, f"{material.prefix}/level_{number}")
        for number in range(1, len(rows))
    }
    collapsed = [
        health.collapse(number, mend)
        for number, health in found.items()
        if health is not None and health.has_collapsed
    ]
    sizes = {
        f"level {number}": (
            np.array(one.rank) / one.possible,
            np.array(one.size) * one.possible / one.items,
        )
        for number, one in enumerate(read_occupancy(material.folder), 1)
    }
    figure = figures.node_sizes(sizes) if sizes else ""
    return Section("Nodes", note=" ".join([*collapsed, _NODES]), figure=figure, rows=rows)


def _health(metrics: Metrics, place: str) -> LevelHealth | None:
    """What was measured of a level; None where some of it was not."""
    values: dict[str, Any] = {
        name: metrics.get(f"{place}/{name}", {}).get("value") for name in _HEALTH
    }
    return LevelHealth(**values) if all(map(is_defined, values.values())) else None


def _nodes_in_training(folder: Path, levels: int) -> Iterator[Section]:
    """How even the nodes were at the validations, where these were some."""
    log = read_metrics(folder)
    panels: dict[str, dict[str, pl.DataFrame]] = {}
    for number in range(1, levels + 1):
        for label, name in _IN_TRAINING.items():
            is_wanted = pl.col("metric") == f"val/level_{number}/{name}"
            values = log.filter(is_wanted).sort("step").select("step", "value")
            if len(values) > figures.FEW_POINTS:
                panels.setdefault(label, {})[f"level {number}"] = values
    if panels:
        yield Section("Nodes in training", note=_TRAINED, figure=figures.curves(panels))


_IN_TRAINING = {
    "NE of the level, choose split": "ne/mean",
    "entropy of the nodes": "entropy",
    "share of the largest node": "largest_share",
}
_TRAINED = "At each validation, items in the nodes that the model had for them then."
_DESCENT = (
    "Every item scored, and descents that keep so many nodes of each level: nodes and items that "
    "are scored over all items; recall, the share of the best of all items that is found; and the "
    "metrics of the items that users engaged with."
)
_NODES = (
    "Entropy is of an item's node, over that of an even spread; the largest node is measured "
    "against the mean of those with items. The line says how many items a node has for "
    "each that it had if all were alike: it ends where nodes are empty."
)


def made_of(config: HsnnRunConfig) -> str:
    """The levels, coarsest first: ``M 32 → S``."""
    net = config.model.net
    return " → ".join([*(f"{level.size} {level.codes:,}" for level in net.levels), net.size])


def described(config: HsnnRunConfig) -> dict[str, str]:
    """The most telling settings."""
    return {
        "levels": made_of(config),
        "nodes are learned by": config.model.net.index.method,
        "recent events": str(config.loader.max_events),
        "gap": f"{config.loader.gap_hours:g} hours",
        "batch": f"{config.loader.batch_requests} requests",
        "beam": str(config.descent.beam),
    }
