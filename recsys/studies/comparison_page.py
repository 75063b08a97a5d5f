"""The outcome of a study as study.md, study.json, study.png and a table in the terminal."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console

from recsys.core.console import UNDEFINED, text_table
from recsys.evaluation.metrics_file import without_nan
from recsys.studies.comparison import Comparison
from recsys.studies.comparison_figure import save_figure
from recsys.studies.plan import StudyConfig
from recsys.studies.spread import Spread

#: Width of the table where the output goes into a file or a pipe.
WIDTH = 180

Rows = list[list[str]]

_GROUP_TITLES = {
    "": "All rows",
    "seen_items": "Rows whose item was seen in the fit period",
    "unseen_items": "Rows whose item was not seen in the fit period",
}
#: Marks tasks with few positives.
_RARE = "*"


def write_comparison(comparison: Comparison, config: StudyConfig) -> None:
    """Write the page, the figures it stands on, and the plot."""
    config.folder.mkdir(parents=True, exist_ok=True)
    config.file("json").write_text(as_json(comparison))
    config.file("md").write_text(page(comparison, config.file("png").name))
    save_figure(comparison, config.file("png"))


def print_comparison(comparison: Comparison, config: StudyConfig) -> None:
    """Print the first table of the page and where everything lies."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(text_table(f"study {comparison.title}", compact_rows(comparison)))
    console.print(_caption(comparison), highlight=False)
    console.print(f"Protocol: {comparison.protocol}", highlight=False)
    console.print(f"Written: {config.file('md')}, {config.file('json')}")


def page(comparison: Comparison, picture: str) -> str:
    """``study.md``."""
    parts = [
        f"# Study {comparison.title}",
        _caption(comparison),
        markdown(overview_rows(comparison)),
        f"![change by task]({picture})",
        "## Size and time",
        markdown(size_rows(comparison)),
        _time_sentence(comparison),
    ]
    for name, group in comparison.groups.items():
        parts += [
            f"## {_GROUP_TITLES[name]} ({group.rows:,})",
            markdown(detail_rows(comparison, name)),
        ]
    parts += ["## Protocol", f"{comparison.protocol}.", _seeds_sentence(comparison)]
    return "\n\n".join(parts) + "\n"


def compact_rows(comparison: Comparison) -> Rows:
    """One row per variant: means over the tasks, size of the encoder, time."""
    rows = [["variant", "mean NE, %", *comparison.regression, "gain captured, %", "encoder", "s"]]
    for name, variant in comparison.compared.items():
        gain = comparison.metric(name, "", "gain_captured/mean")
        rows.append(
            [
                name,
                *(
                    _spread(comparison.change(name, "", task), "+.2f")
                    for task in ("mean", *comparison.regression)
                ),
                _spread(gain, ".1f", scale=100),
                f"{variant.weights['encoder']:,} weights",
                _number(variant.training_seconds, ",.0f"),
            ]
        )
    return rows


def overview_rows(comparison: Comparison) -> Rows:
    """One row per variant: the change against the baseline by task, over seeds."""
    tasks = [*comparison.tasks, "mean"]
    captured = any(
        comparison.metric(name, "", "gain_captured/mean") for name in comparison.compared
    )
    headings = [_task(comparison, "", task) for task in tasks]
    rows = [["variant", *headings, *(["gain captured, %"] if captured else [])]]
    for name in comparison.compared:
        row = [name, *(_spread(comparison.change(name, "", task), "+.2f") for task in tasks)]
        if captured:
            gain = comparison.metric(name, "", "gain_captured/mean")
            row.append(_spread(gain, ".1f", scale=100))
        rows.append(row)
    return rows


def size_rows(comparison: Comparison) -> Rows:
    """One row per variant: number of weights by part, training time, mean NE of choose."""
    parts = list(next(iter(comparison.variants.values())).weights)
    rows = [["variant", *parts, "training, s", "mean NE, choose", "seeds"]]
    for name, variant in comparison.variants.items():
        rows.append(
            [
                name,
                *(f"{count:,}" for count in variant.weights.values()),
                _number(variant.training_seconds, ",.0f"),
                _spread(variant.metrics.get("val/ne/mean"), ".4f"),
                ", ".join(map(str, variant.seeds)),
            ]
        )
    return rows


def detail_rows(comparison: Comparison, group: str) -> Rows:
    """One row per task and variant: both losses, the change over seeds, one seed's interval."""
    seed = min(next(iter(comparison.compared.values())).seeds)
    captured = any(name.endswith("/gain_captured/mean") for name in _metric_names(comparison))
    rows = [
        [
            "task",
            "positives",
            "variant",
            "baseline",
            "NE (MSE)",
            "change, %",
            "min to max",
            f"95 % interval, seed {seed}",
            *(["gain captured, %"] if captured else []),
        ]
    ]
    for task in [*comparison.tasks, "mean"]:
        loss, form = ("mse", ",.1f") if task in comparison.regression else ("ne", ".4f")
        positives = comparison.groups[group].positives.get(task)
        for name in comparison.compared:
            change = comparison.change(name, group, task)
            row = [
                _task(comparison, group, task),
                UNDEFINED if positives is None else f"{positives:,}",
                name,
                _spread(comparison.metric(comparison.baseline, group, f"{loss}/{task}"), form),
                _spread(comparison.metric(name, group, f"{loss}/{task}"), form),
                _spread(change, "+.2f"),
                _range(change),
                _interval(change, seed),
            ]
            if captured:
                gain = comparison.metric(name, group, f"gain_captured/{task}")
                row.append(_spread(gain, ".1f", scale=100))
            rows.append(row)
    return rows


def _metric_names(comparison: Comparison) -> set[str]:
    return {name for variant in comparison.compared.values() for name in variant.metrics}


def _caption(comparison: Comparison) -> str:
    regression = " and ".join(comparison.regression)
    of_mse = f" (of MSE for {regression})" if regression else ""
    rare = [task for task in comparison.tasks if comparison.is_rare("", task)]
    fewer = f" {_RARE} fewer than {comparison.rare_positives} positives"
    marked = f"{fewer}: read the interval, not the value." if rare else ""
    several = any(len(variant.seeds) > 1 for variant in comparison.compared.values())
    seeds = " Mean over seeds ± their standard deviation." if several else ""
    return (
        f"Relative NE delta{of_mse} against {comparison.baseline} in percent on the split "
        f"{comparison.split}; below 0 is better.{seeds}{marked}"
    )


def _time_sentence(comparison: Comparison) -> str:
    revisions = ", ".join(comparison.revisions)
    return (
        "Training time is the wall time of `recsys train`, mean over seeds, start and validations "
        f"included; {comparison.jobs} run(s) at a time. Git revision: {revisions}."
    )


def _seeds_sentence(comparison: Comparison) -> str:
    seeds = "; ".join(
        f"{name}: {', '.join(map(str, variant.seeds))}"
        for name, variant in comparison.variants.items()
    )
    return (
        f"This is the protocol of one run; seeds by variant: {seeds}. A run is compared with the "
        f"{comparison.baseline} of the same seed. Intervals are over users for one seed; the "
        "spread over seeds comes on top."
    )


def _task(comparison: Comparison, group: str, task: str) -> str:
    return f"{task} {_RARE}" if task != "mean" and comparison.is_rare(group, task) else task


def _spread(spread: Spread | None, form: str, scale: float = 1) -> str:
    if spread is None:
        return UNDEFINED
    text = _number(scale * spread.mean, form)
    return text if spread.sd is None else f"{text} ± {scale * spread.sd:{form.lstrip('+')}}"


def _range(spread: Spread | None) -> str:
    if spread is None or spread.sd is None:
        return UNDEFINED
    return f"{spread.low:+.2f} to {spread.high:+.2f}"


def _interval(spread: Spread | None, seed: int) -> str:
    interval = spread.by_seed.get(seed) if spread is not None else None
    if interval is None or not math.isfinite(interval.low):
        return UNDEFINED
    return f"[{interval.low:+.2f}, {interval.high:+.2f}]"


def _number(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else UNDEFINED


def markdown(rows: Rows) -> str:
    """Headings and rows as a Markdown table; all but the first column to the right."""
    lines = [rows[0], ["---", *("---:" for _ in rows[0][1:])], *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(outcome: Any) -> str:
    """A dataclass as text; what is not defined is null."""
    return json.dumps(without_nan(asdict(outcome)), indent=2, ensure_ascii=False) + "\n"
