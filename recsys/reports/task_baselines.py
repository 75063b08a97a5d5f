"""A model that predicts tasks beside its baselines, in words and in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.evaluation.baselines.config import BOOSTED_COUNTS, TASK_BASELINES, TASK_MEANS
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics, is_defined
from recsys.evaluation.together import MEAN, MSE_DELTA, NE_DELTA
from recsys.reports.task_tables import task_names

#: What the column of the model itself is called.
MODEL = "model"


def print_baselines(metrics: Metrics, config: EvaluateConfig) -> None:
    """Print the losses of every task, and a line per baseline."""
    prefix, console = config.prefix, output_console()
    names = measured_baselines(metrics, prefix)
    if not names:
        return
    title = f"{config.run_dir} beside cheap baselines, NE (MSE)"
    console.print(text_table(title, baseline_rows(metrics, prefix)))
    for name in names:
        console.print(verdict(metrics, prefix, name))


def measured_baselines(metrics: Metrics, prefix: str) -> list[str]:
    """The baselines that were measured on a split."""
    return [name for name in TASK_BASELINES if change(metrics, prefix, name)]


def change(metrics: Metrics, prefix: str, baseline: str) -> Mapping[str, Any] | None:
    """What the model changes in one number: the mean NE, or the first MSE where there is none."""
    of_baseline = f"{prefix}/{baseline}"
    mean = metrics.get(f"{of_baseline}/{NE_DELTA}/{MEAN}")
    if mean is not None and is_defined(mean["value"]):
        return mean
    of_mse = (metrics[name] for name in metrics if name.startswith(f"{of_baseline}/{MSE_DELTA}/"))
    return next(of_mse, mean)


def of_model(metrics: Metrics, prefix: str) -> Mapping[str, Any] | None:
    """The number of the model, or below a baseline's place its, that :func:`change` is about."""
    mean = metrics.get(f"{prefix}/ne/{MEAN}")
    if mean is not None and is_defined(mean["value"]):
        return mean
    of_mse = (metrics[name] for name in metrics if name.startswith(f"{prefix}/mse/"))
    return next(of_mse, mean)


def called(baseline: str) -> str:
    """What a baseline is called in tables."""
    return TASK_BASELINES[baseline].removeprefix("the ")


def unit(metrics: Metrics, prefix: str) -> str:
    """What :func:`of_model` is."""
    if is_defined(metrics.get(f"{prefix}/ne/{MEAN}", {}).get("value")):
        return "mean NE"
    place = f"{prefix}/mse/"
    of_mse = (name.removeprefix(place) for name in metrics if name.startswith(place))
    return next((f"MSE of {task}" for task in of_mse), "mean NE")


def strongest(metrics: Metrics, prefix: str) -> list[str]:
    """The baselines that a reader has to know of: the best of the means, and LightGBM."""
    measured = measured_baselines(metrics, prefix)
    found = {name: of_model(metrics, f"{prefix}/{name}") for name in measured}
    means = {
        name: one["value"]
        for name, one in found.items()
        if name in TASK_MEANS and one is not None and is_defined(one["value"])
    }
    best = [min(means, key=lambda name: means[name])] if means else []
    return best + [name for name in measured if name == BOOSTED_COUNTS]


def verdict(metrics: Metrics, prefix: str, baseline: str) -> str:
    """Whether the model beats a baseline, as a sentence."""
    found = change(metrics, prefix, baseline)
    name, what = TASK_BASELINES[baseline], unit(metrics, prefix)
    if found is None or not is_defined(found["value"]):
        return f"Whether the model beats {name} is not defined."
    number = f"{what} {percent(found)}"
    low, high = found.get("low"), found.get("high")
    better, worse = sure_tasks(metrics, prefix, baseline)
    in_tasks = {"better": better, "worse": worse}
    if not is_defined(low) or not is_defined(high):
        said = f"The model beside {name}, without an interval"
    elif high < 0:
        said, in_tasks = f"The model beats {name}", {"worse": worse}
    elif low > 0:
        said, in_tasks = f"The model is worse than {name}", {"better": better}
    else:
        said = f"The model cannot be told from {name}"
    parts = [f"{how} in {', '.join(tasks)}" for how, tasks in in_tasks.items() if tasks]
    return f"{'; '.join([f'{said}: {number}', *parts])}."


def sure_tasks(metrics: Metrics, prefix: str, baseline: str) -> tuple[list[str], list[str]]:
    """Tasks in which the whole interval says that the model is better, or worse."""
    better, worse = [], []
    for task in task_names(metrics, prefix):
        names = (f"{prefix}/{baseline}/{delta}/{task}" for delta in (NE_DELTA, MSE_DELTA))
        found = next((metrics[name] for name in names if name in metrics), {})
        low, high = found.get("low"), found.get("high")
        if task == MEAN or not is_defined(low) or not is_defined(high):
            continue
        if high < 0:
            better.append(task)
        elif low > 0:
            worse.append(task)
    return better, worse


def percent(metric: Mapping[str, Any]) -> str:
    """A change with its interval."""
    if not is_defined(metric["value"]):
        return UNDEFINED
    text = f"{metric['value']:+.2f} %"
    if is_defined(metric.get("low")) and is_defined(metric.get("high")):
        text += f" [{metric['low']:+.2f}, {metric['high']:+.2f}]"
    return text


def baseline_rows(metrics: Metrics, prefix: str) -> list[list[str]]:
    """Headings, then one row per task: NE, or MSE, of the model and of each baseline."""
    names = measured_baselines(metrics, prefix)
    rows = [["task", MODEL, *map(called, names)]]
    for task in task_names(metrics, prefix):
        rows.append([task, *(_cell(metrics, prefix, place, task) for place in ("", *names))])
    return rows


def _cell(metrics: Metrics, prefix: str, baseline: str, task: str) -> str:
    places = (f"{prefix}/{baseline}/{metric}/{task}" for metric in ("ne", "mse"))
    found = (metrics.get(place.replace("//", "/")) for place in places)
    value = next((one["value"] for one in found if one is not None), None)
    return f"{value:.4f}" if is_defined(value) else UNDEFINED
