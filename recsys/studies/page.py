"""The outcome of a study as study.md, study.json, study.png and a table in the terminal."""

from __future__ import annotations

import math
import sys

from rich.console import Console

from recsys.core.console import UNDEFINED, text_table
from recsys.studies.figure import save_figure
from recsys.studies.plan import StudyConfig
from recsys.studies.summary import Spread, Summary, as_json

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


def write_summary(summary: Summary, config: StudyConfig) -> None:
    """Write the page, the figures it stands on, and the plot."""
    config.folder.mkdir(parents=True, exist_ok=True)
    config.file("json").write_text(as_json(summary))
    config.file("md").write_text(page(summary, config.file("png").name))
    save_figure(summary, config.file("png"))


def print_summary(summary: Summary, config: StudyConfig) -> None:
    """Print the first table of the page and where everything lies."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(text_table(f"study {summary.title}", compact_rows(summary)))
    console.print(_caption(summary), highlight=False)
    console.print(f"Protocol: {summary.protocol}", highlight=False)
    console.print(f"Written: {config.file('md')}, {config.file('json')}")


def page(summary: Summary, picture: str) -> str:
    """``study.md``."""
    parts = [
        f"# Study {summary.title}",
        _caption(summary),
        markdown(overview_rows(summary)),
        f"![change by task]({picture})",
        "## Size and time",
        markdown(size_rows(summary)),
        _time_sentence(summary),
    ]
    for name, group in summary.groups.items():
        parts += [
            f"## {_GROUP_TITLES[name]} ({group.rows:,})",
            markdown(detail_rows(summary, name)),
        ]
    parts += ["## Protocol", f"{summary.protocol}.", _seeds_sentence(summary)]
    return "\n\n".join(parts) + "\n"


def compact_rows(summary: Summary) -> Rows:
    """One row per variant: means over the tasks, size of the encoder, time."""
    rows = [["variant", "mean NE, %", *summary.regression, "gain captured, %", "encoder", "s"]]
    for name, variant in summary.compared.items():
        gain = summary.metric(name, "", "gain_captured/mean")
        rows.append(
            [
                name,
                *(
                    _spread(summary.change(name, "", task), "+.2f")
                    for task in ("mean", *summary.regression)
                ),
                _spread(gain, ".1f", scale=100),
                f"{variant.weights['encoder']:,} weights",
                _number(variant.training_seconds, ",.0f"),
            ]
        )
    return rows


def overview_rows(summary: Summary) -> Rows:
    """One row per variant: the change against the baseline by task, over seeds."""
    tasks = [*summary.tasks, "mean"]
    captured = any(summary.metric(name, "", "gain_captured/mean") for name in summary.compared)
    headings = [_task(summary, "", task) for task in tasks]
    rows = [["variant", *headings, *(["gain captured, %"] if captured else [])]]
    for name in summary.compared:
        row = [name, *(_spread(summary.change(name, "", task), "+.2f") for task in tasks)]
        if captured:
            gain = summary.metric(name, "", "gain_captured/mean")
            row.append(_spread(gain, ".1f", scale=100))
        rows.append(row)
    return rows


def size_rows(summary: Summary) -> Rows:
    """One row per variant: number of weights by part, training time, mean NE of choose."""
    parts = list(next(iter(summary.variants.values())).weights)
    rows = [["variant", *parts, "training, s", "mean NE, choose", "seeds"]]
    for name, variant in summary.variants.items():
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


def detail_rows(summary: Summary, group: str) -> Rows:
    """One row per task and variant: both losses, the change over seeds, one seed's interval."""
    seed = min(next(iter(summary.compared.values())).seeds)
    captured = any(name.endswith("/gain_captured/mean") for name in _metric_names(summary))
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
    for task in [*summary.tasks, "mean"]:
        loss, form = ("mse", ",.1f") if task in summary.regression else ("ne", ".4f")
        positives = summary.groups[group].positives.get(task)
        for name in summary.compared:
            change = summary.change(name, group, task)
            row = [
                _task(summary, group, task),
                UNDEFINED if positives is None else f"{positives:,}",
                name,
                _spread(summary.metric(summary.baseline, group, f"{loss}/{task}"), form),
                _spread(summary.metric(name, group, f"{loss}/{task}"), form),
                _spread(change, "+.2f"),
                _range(change),
                _interval(change, seed),
            ]
            if captured:
                gain = summary.metric(name, group, f"gain_captured/{task}")
                row.append(_spread(gain, ".1f", scale=100))
            rows.append(row)
    return rows


def _metric_names(summary: Summary) -> set[str]:
    return {name for variant in summary.compared.values() for name in variant.metrics}


def _caption(summary: Summary) -> str:
    regression = " and ".join(summary.regression)
    of_mse = f" (of MSE for {regression})" if regression else ""
    rare = [task for task in summary.tasks if summary.is_rare("", task)]
    marked = (
        f" {_RARE} fewer than {summary.rare_positives} positives: read the interval, not the value."
        if rare
        else ""
    )
    several = any(len(variant.seeds) > 1 for variant in summary.compared.values())
    seeds = " Mean over seeds ± their standard deviation." if several else ""
    return (
        f"Relative NE delta{of_mse} against {summary.baseline} in percent on the split "
        f"{summary.split}; below 0 is better.{seeds}{marked}"
    )


def _time_sentence(summary: Summary) -> str:
    return (
        "Training time is the wall time of `recsys train`, mean over seeds, start and validations "
        f"included; {summary.jobs} run(s) at a time. Git revision: {', '.join(summary.revisions)}."
    )


def _seeds_sentence(summary: Summary) -> str:
    seeds = "; ".join(
        f"{name}: {', '.join(map(str, variant.seeds))}"
        for name, variant in summary.variants.items()
    )
    return (
        f"This is the protocol of one run; seeds by variant: {seeds}. A run is compared with the "
        f"{summary.baseline} of the same seed. Intervals are over users for one seed; the spread "
        "over seeds comes on top."
    )


def _task(summary: Summary, group: str, task: str) -> str:
    return f"{task} {_RARE}" if task != "mean" and summary.is_rare(group, task) else task


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
