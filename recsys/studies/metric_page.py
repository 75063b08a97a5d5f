"""How a table of metrics is shown: its rows and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.console import UNDEFINED
from recsys.studies import tables
from recsys.studies.figures import metric_figure
from recsys.studies.metric_table import MetricRow, MetricTable, change, metric_table
from recsys.studies.outcome import Outcome
from recsys.studies.over_seeds import diverged_sentences
from recsys.studies.plan import StudyConfig, StudyRun
from recsys.studies.spread import Spread
from recsys.studies.tables import Rows

#: What is so large is a count.
_COUNTS = 100


def metric_outcome(
    config: StudyConfig, runs: Sequence[StudyRun], diverged: Sequence[StudyRun]
) -> Outcome:
    """What the finished runs of a study without a baseline say, and which diverged."""
    metrics, sentences = metric_table(config, runs, diverged), diverged_sentences(diverged)
    rows, changes, caption = table_rows(metrics), change_rows(metrics), _caption(metrics)
    picture = f"![metrics by {metrics.axis or 'variant'}]({config.file('png').name})"
    sections = [caption, tables.markdown(rows), *sentences, picture]
    if changes:
        against = metrics.reference or "the first point of each line"
        sections += [f"## Change against {against}, %", tables.markdown(changes)]
    protocols = "\n".join(f"- `{name}`: {text}." for name, text in metrics.protocols.items())
    sections += ["## Protocol", "Of the first run:", protocols]
    sections.append(f"Git revision: {', '.join(metrics.revisions)}.")
    return Outcome(metrics, sections, rows, [caption, *sentences], metric_figure(metrics))


def table_rows(metrics: MetricTable) -> Rows:
    """A row per variant, point and scorer; ± is the deviation over seeds."""
    return tables.table(
        [
            *_first_columns(metrics, name, row),
            *((one, _measured(row.metrics.get(one))) for one in metrics.shown),
            ("n", _n(row, metrics.shown)),
            ("seeds", tables.seeds_cell(row.seeds, row.diverged)),
            ("training, s", tables.number_cell(row.training_seconds, ",.0f")),
        ]
        for name, row in metrics.rows.items()
    )


def change_rows(metrics: MetricTable) -> Rows:
    """The percent change of each point against the first of its line, or of each row against the
    reference; [] where there are none.
    """
    first_of = {name: line[0] for name, line in metrics.lines.items()}
    rows = {name: row for name, row in metrics.rows.items() if isinstance(row.at, float)}
    if (reference := metrics.rows.get(metrics.reference or "")) is not None:
        rows = {name: row for name, row in metrics.rows.items() if row.seeds}
        first_of = dict.fromkeys((row.line for row in rows.values()), reference)
    return tables.table(
        [
            *_first_columns(metrics, name, row),
            *(
                (one, tables.spread_cell(change(row, first_of[row.line], one), "+.1f"))
                for one in metrics.shown
            ),
        ]
        for name, row in rows.items()
        if row is not first_of[row.line]
    )


def _caption(metrics: MetricTable) -> str:
    return (
        f"Metrics of the split {metrics.split}; mean over seeds ± their standard deviation where "
        "there are several, otherwise with half the 95 % bootstrap interval over users in "
        "brackets. n: queries measured, one number per candidate set where they differ."
    )


def _measured(spread: Spread | None) -> str:
    """A share with its digits, a count without."""
    is_count = spread is not None and abs(spread.mean) >= _COUNTS
    return tables.measured_cell(spread, ",.0f" if is_count else ".4f")


def _first_columns(metrics: MetricTable, name: str, row: MetricRow) -> list[tuple[str, str]]:
    at = UNDEFINED if row.at is None else f"{row.at:g}" if isinstance(row.at, float) else row.at
    point = [] if metrics.axis is None else [(metrics.axis, at)]
    return [("variant", row.line or name), *point]


def _n(row: MetricRow, shown: list[str]) -> str:
    counts = dict.fromkeys(row.queries[metric] for metric in shown if metric in row.queries)
    return " / ".join(f"{count:,}" for count in counts) or UNDEFINED
