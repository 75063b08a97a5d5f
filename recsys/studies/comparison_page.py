"""How a comparison of variants is shown: its rows and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.console import UNDEFINED
from recsys.evaluation.comparisons import GAIN_CAPTURED
from recsys.studies import tables
from recsys.studies.comparison import Comparison, compare_variants
from recsys.studies.figures import comparison_figure
from recsys.studies.outcome import Outcome
from recsys.studies.over_seeds import diverged_sentences
from recsys.studies.plan import StudyConfig, StudyRun
from recsys.studies.tables import Rows
from recsys.systems.choice import system_of_run

_GROUP_TITLES = {
    "": "All rows",
    "seen_items": "Rows whose item was seen in the fit period",
    "unseen_items": "Rows whose item was not seen in the fit period",
}
_GAIN = "gain captured, %"
#: Marks tasks with few positives.
_RARE = "*"


def comparison_outcome(
    config: StudyConfig, runs: Sequence[StudyRun], diverged: Sequence[StudyRun]
) -> Outcome:
    """What the finished runs of a study with a baseline say, and which diverged."""
    comparison = compare_variants(config, runs, diverged)
    sentences = diverged_sentences(diverged)
    caption = _caption(comparison)
    sections = [
        caption,
        tables.markdown(overview_rows(comparison)),
        *sentences,
        f"![change by task]({config.file('png').name})",
        "## Size and time",
        tables.markdown(size_rows(comparison)),
        _time_sentence(comparison),
    ]
    for name, group in comparison.groups.items():
        sections.append(f"## {_GROUP_TITLES[name]} ({group.rows:,})")
        sections.append(tables.markdown(detail_rows(comparison, name)))
    return Outcome(
        numbers=comparison,
        sections=[*sections, "## Protocol", f"{comparison.protocol}.", _seeds_sentence(comparison)],
        table=compact_rows(comparison, system_of_run(runs[0].folder).compared_part),
        notes=[caption, f"Protocol: {comparison.protocol}", *sentences],
        figure=comparison_figure(comparison),
    )


def compact_rows(comparison: Comparison, part: str) -> Rows:
    """One row per variant: means over the tasks, size of a part of the model, time."""
    return tables.table(
        [
            ("variant", name),
            ("mean NE, %", _change(comparison, name, "", "mean")),
            *((task, _change(comparison, name, "", task)) for task in comparison.regression),
            (_GAIN, _gain(comparison, name, "", "mean")),
            (part, f"{variant.weights[part]:,} weights"),
            ("s", tables.number_cell(variant.training_seconds, ",.0f")),
        ]
        for name, variant in comparison.compared.items()
    )


def overview_rows(comparison: Comparison) -> Rows:
    """One row per variant: the change against the baseline by task, over seeds."""
    lines = []
    for name in comparison.compared:
        line = [("variant", name)]
        for task in [*comparison.tasks, "mean"]:
            line.append((_task(comparison, "", task), _change(comparison, name, "", task)))
        if _has_gain(comparison, ""):
            line.append((_GAIN, _gain(comparison, name, "", "mean")))
        lines.append(line)
    return tables.table(lines)


def size_rows(comparison: Comparison) -> Rows:
    """One row per variant: number of weights by part, training time, mean NE of choose."""
    return tables.table(
        [
            ("variant", name),
            *((part, f"{count:,}") for part, count in variant.weights.items()),
            ("training, s", tables.number_cell(variant.training_seconds, ",.0f")),
            ("mean NE, choose", tables.spread_cell(variant.metrics.get("val/ne/mean"), ".4f")),
            ("seeds", tables.seeds_cell(variant.seeds, variant.diverged)),
        ]
        for name, variant in comparison.variants.items()
    )


def detail_rows(comparison: Comparison, group: str) -> Rows:
    """One row per task and variant: both losses, the change over seeds, one seed's interval."""
    seed = min(next(iter(comparison.compared.values())).seeds)
    lines = []
    for task in [*comparison.tasks, "mean"]:
        loss, form = ("mse", ",.1f") if task in comparison.regression else ("ne", ".4f")
        positives = comparison.groups[group].positives.get(task)
        theirs = comparison.metric(comparison.baseline, group, f"{loss}/{task}")
        for name in comparison.compared:
            change = comparison.change(name, group, task)
            ours = comparison.metric(name, group, f"{loss}/{task}")
            line = [
                ("task", _task(comparison, group, task)),
                ("positives", UNDEFINED if positives is None else f"{positives:,}"),
                ("variant", name),
                ("baseline", tables.spread_cell(theirs, form)),
                ("NE (MSE)", tables.spread_cell(ours, form)),
                ("change, %", _change(comparison, name, group, task)),
                ("min to max", tables.range_cell(change, "+.2f")),
                (f"95 % interval, seed {seed}", tables.interval_cell(change, seed, "+.2f")),
            ]
            if _has_gain(comparison, *comparison.groups):
                line.append((_GAIN, _gain(comparison, name, group, task)))
            lines.append(line)
    return tables.table(lines)


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
        f"{name}: {tables.seeds_cell(variant.seeds, variant.diverged)}"
        for name, variant in comparison.variants.items()
    )
    return (
        f"This is the protocol of one run; seeds by variant: {seeds}. A run is compared with the "
        f"{comparison.baseline} of the same seed. Intervals are over users for one seed; the "
        "spread over seeds comes on top."
    )


def _change(comparison: Comparison, variant: str, group: str, task: str) -> str:
    return tables.spread_cell(comparison.change(variant, group, task), "+.2f")


def _gain(comparison: Comparison, variant: str, group: str, task: str) -> str:
    gain = comparison.metric(variant, group, f"{GAIN_CAPTURED}/{task}")
    return tables.spread_cell(gain, ".1f", scale=100)


def _has_gain(comparison: Comparison, *groups: str) -> bool:
    """Whether any gain is defined: only where the truth is known."""
    name = f"{GAIN_CAPTURED}/mean"
    return any(
        comparison.metric(one, group, name) for one in comparison.compared for group in groups
    )


def _task(comparison: Comparison, group: str, task: str) -> str:
    return f"{task} {_RARE}" if task != "mean" and comparison.is_rare(group, task) else task
