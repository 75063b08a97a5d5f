"""Tables, sentences and page of `recsys tune`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recsys.core.console import UNDEFINED
from recsys.evaluation.paired import Interval
from recsys.online.tuning.config import Limits, TuneConfig
from recsys.online.tuning.points import operating_points
from recsys.online.tuning.trials import Confirmation, Trial, Tuning, choose, pareto_front
from recsys.reports.figures import against, trade_off
from recsys.reports.page import Section, write_own_page

PAGE = "tuning.html"
MADE_BY = "recsys tune"

Rows = list[list[str]]
_POINTS = "Operating points, in % of the funnel as it is"


def tables(found: Tuning, config: TuneConfig) -> dict[str, Rows]:
    """By title, headings and rows, for the terminal and the page."""
    shown = {
        "Trials, in % of the funnel as it is (* on the Pareto front)": _trials(found, config),
        "Parameters": _parameters(found, config),
        "The choice on other users, in %": _confirmation(found, config),
    }
    if config.tuning.points:
        shown[_POINTS] = _points(found, config)
    if any(one.predicted for one in found.trials):
        shown["Predicted from the trials before, and found"] = _predictions(found, config)
    return shown


def sentences(found: Tuning, config: TuneConfig) -> list[str]:
    """What the numbers come to."""
    tuning, best = config.tuning, _best(found, config)
    name = f"trial {1 + _number(found, best)} of {len(found.trials)}"
    if not best.is_feasible(tuning):
        beyond = ", ".join(
            f"{metric} by {by:.1f} %" for metric, by in best.violations(tuning).items() if by > 0
        )
        said = [f"No trial meets all constraints; {name} violates them least: {beyond}."]
    elif best.goal(tuning) <= 0:
        said = [f"No trial is better than the funnel as it is; {name} comes nearest."]
    else:
        said = [f"Chosen: {name}, {tuning.goal} {best.goal(tuning):+.1f} %."]
    if found.confirmation is not None:
        said.append(_confirmed(found.confirmation, config))
    return said


def write_page(found: Tuning, config: TuneConfig, folder: Path) -> None:
    """Write the page, which needs nothing beside itself."""
    best, tuning = _best(found, config), config.tuning
    shown = tables(found, config)
    trials, parameters, confirmed, *more = shown
    predicted = [title for title in more if title != _POINTS]
    tiles = [
        {"name": tuning.goal, "value": f"{best.goal(tuning):+.1f} %", "accent": True},
        *(
            {"name": name, "value": f"{best.changes[name]:+.1f} %", "accent": False}
            for name in tuning.constraints
        ),
        {"name": "trials", "value": str(len(found.trials)), "accent": False},
    ]
    front = pareto_front(found.trials, tuning)
    sections = [
        Section(confirmed, rows=shown[confirmed], note="With intervals, paired over users."),
        *(
            Section(f"{tuning.goal} against {name}", figure=_trade_off(found, config, front, name))
            for name in tuning.constraints
        ),
        Section(parameters, rows=shown[parameters]),
        *(Section(title, rows=shown[title]) for title in more if title == _POINTS),
        *(_predicted(shown[title], title, found, config) for title in predicted),
        Section(trials, rows=shown[trials]),
        Section("Parameters of the trials", rows=_all_parameters(found)),
    ]
    write_own_page(
        folder / PAGE,
        MADE_BY,
        title="A funnel, tuned",
        subtitle=f"{config.out} · {config.simulation} · way={config.way}",
        headline=sentences(found, config),
        tiles=tiles,
        sections=sections,
    )


def _best(found: Tuning, config: TuneConfig) -> Trial:
    best = choose(found.trials, config.tuning)
    assert best is not None, "a tuning that has ended has a choice"
    return best


def _number(found: Tuning, trial: Trial) -> int:
    return next(number for number, one in enumerate(found.trials) if one is trial)


def _trials(found: Tuning, config: TuneConfig) -> Rows:
    tuning = config.tuning
    front = {id(one) for one in pareto_front(found.trials, tuning)}
    best = _best(found, config)
    rows = [["trial", tuning.goal, *tuning.constraints, "within limits", "chosen"]]
    for number, one in enumerate(found.trials, 1):
        changes = [_percent(one.changes[name]) for name in rows[0][1 : 2 + len(tuning.constraints)]]
        allowed = "yes" if one.is_feasible(tuning) else "no"
        mark = "*" if id(one) in front else ""
        rows.append([f"{number}{mark}", *changes, allowed, "chosen" if one is best else ""])
    return rows


def _points(found: Tuning, config: TuneConfig) -> Rows:
    tuning, chosen = config.tuning, operating_points(found, config.tuning)
    rows = [["point", *tuning.metrics, *tuning.parameters]]
    for name in tuning.points:
        if name not in chosen:
            rows.append([f"{name}: no trial is within its limits", *[""] * (len(rows[0]) - 1)])
            continue
        one = chosen[name]
        changes = [_percent(one.changes[metric]) for metric in tuning.metrics]
        numbers = [f"{one.parameters[parameter]:.4g}" for parameter in tuning.parameters]
        rows.append([name, *changes, *numbers])
    return rows


def _parameters(found: Tuning, config: TuneConfig) -> Rows:
    best = _best(found, config)
    rows = [["parameter", "low", "high", "as it is", "chosen"]]
    for name, of in config.tuning.parameters.items():
        numbers = (of.low, of.high, found.now.parameters[name], best.parameters[name])
        rows.append([name, *(f"{number:.4g}" for number in numbers)])
    return rows


def _all_parameters(found: Tuning) -> Rows:
    rows = [["trial", *found.now.parameters]]
    for name, one in [("as it is", found.now), *enumerate(found.trials, 1)]:
        rows.append([str(name), *(f"{number:.4g}" for number in one.parameters.values())])
    return rows


def _confirmation(found: Tuning, config: TuneConfig) -> Rows:
    tuning, best = config.tuning, _best(found, config)
    rows = [["metric", "asked for", "when chosen", "on other users"]]
    if found.confirmation is not None:
        asked = {tuning.goal: "up"} | {n: _asked(one) for n, one in tuning.constraints.items()}
        for name, what in asked.items():
            change = _interval(found.confirmation.changes[name])
            rows.append([name, what, _percent(best.changes[name]), change])
    return rows


def _confirmed(of: Confirmation, config: TuneConfig) -> str:
    goal = of.changes[config.tuning.goal]
    beyond = [
        name
        for name, limits in config.tuning.constraints.items()
        if not limits.violation(of.changes[name].value) <= 0
    ]
    certain = "up" if goal.low > 0 else "down" if goal.high < 0 else "not told from no change"
    held = f"beyond its limit there: {', '.join(beyond)}" if beyond else "all limits hold there"
    return (
        f"On {of.users:,} other users ({of.visits:,} visits) {config.tuning.goal} is {certain}, "
        f"{_interval(goal)} %; {held}."
    )


def _predictions(found: Tuning, config: TuneConfig) -> Rows:
    rows = [["metric", "trials", "correlation", "error", "change found"]]
    for name in (config.tuning.goal, *config.tuning.constraints):
        predicted, changed = _pairs(found.trials, name)
        error, size = (np.sqrt(np.square(one).mean()) for one in (predicted - changed, changed))
        varied = len(changed) > 2 and predicted.std() > 0 and changed.std() > 0
        correlation = np.corrcoef(predicted, changed)[0, 1] if varied else math.nan
        numbers = [_number_text(correlation), f"{error:.1f}", f"{size:.1f}"]
        rows.append([name, str(len(changed)), *numbers])
    return rows


def _predicted(rows: Rows, title: str, found: Tuning, config: TuneConfig) -> Section:
    names = (config.tuning.goal, *config.tuning.constraints)
    points = {name: _pairs(found.trials, name) for name in names}
    note = (
        "Each trial is predicted by the map that the trials before it give, before it is played. "
        "Error and change found are root mean squares, in percentage points."
    )
    figure = against(points, "predicted, %", "found, %")
    return Section(title, note=note, rows=rows, figure=figure)


def _pairs(trials: Sequence[Trial], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of trials that were predicted, what was predicted and found."""
    some = [one for one in trials if one.predicted and math.isfinite(one.changes[name])]
    return (
        np.array([one.predicted[name] for one in some]),
        np.array([one.changes[name] for one in some]),
    )


def _trade_off(found: Tuning, config: TuneConfig, front: Sequence[Trial], name: str) -> str:
    tuning = config.tuning
    chosen = _best(found, config)

    def points(trials: Sequence[Trial]) -> list[tuple[float, float]]:
        return [(one.changes[name], one.goal(tuning)) for one in trials if one.is_defined(tuning)]

    groups: Mapping[str, list[tuple[float, float]]] = {
        "beyond a limit": points([one for one in found.trials if not one.is_feasible(tuning)]),
        "within all limits": points([one for one in found.trials if one.is_feasible(tuning)]),
        "Pareto front": points(front),
        "chosen": points([chosen]),
        "as it is": [(0.0, 0.0)],
    }
    limits = tuning.constraints[name]
    lines = [one for one in (limits.at_most, limits.at_least) if one is not None]
    return trade_off(groups, f"{name}, change in %", f"{tuning.goal}, change in %", lines)


def _asked(limits: Limits) -> str:
    ends = (("at most", limits.at_most), ("at least", limits.at_least))
    return ", ".join(f"{word} {end:+g}" for word, end in ends if end is not None)


def _interval(of: Interval) -> str:
    return f"{_percent(of.value)} [{_percent(of.low)}, {_percent(of.high)}]"


def _percent(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:+.1f}"


def _number_text(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.2f}"
