"""Evaluation of models that predict tasks for logged rows: NE, AUC, calibration, comparisons."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.stores.requests import TRUTHS
from recsys.evaluation.baselines.config import TASK_BASELINES
from recsys.evaluation.baselines.tasks import Beside
from recsys.evaluation.calibration import BINS, CALIBRATED, Calibration, calibration_errors
from recsys.evaluation.comparisons import (
    compare,
    labels_of,
    measure,
    measure_scores,
    scores,
)
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.identity import CheckpointUsed, RunIdentity
from recsys.evaluation.list_metrics import list_metrics
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.together import MeasuredTogether
from recsys.evaluation.with_protocol import (
    drawn_by,
    interval_with_protocol,
    with_interval,
    with_protocol,
)

#: Count in the manifest: item indices below it were seen in the fit period.
FIT_ITEMS = "fit_vocabulary_item"

#: The model among the scorers that are measured together.
_MODEL = "model"


@dataclass(frozen=True, eq=False)
class Control:
    """The run that another one is compared with.

    Attributes:
        run_dir: its folder, as the user named it.
        frame: its predictions of the same rows.
        checkpoint: which of its weights made them.
    """

    run_dir: str
    frame: pl.DataFrame
    checkpoint: CheckpointUsed


def evaluate_tasks(
    run: RunIdentity,
    manifest: DatasetManifest,
    frame: pl.DataFrame,
    beside: Beside,
    config: EvaluateConfig,
    control: Control | None,
    calibration: Calibration | None = None,
) -> Metrics:
    """Measure the predictions of a split beside baselines, and against another run's.

    Args:
        run: which made them.
        manifest: of the data set it was trained on.
        frame: the predictions (``recsys.evaluation.predictions``), in order of ``row_id``.
        beside: the baselines' predictions of the same rows.
        config: the split, and how intervals are made.
        control: the run to compare with.
        calibration: what the frame's calibrated columns went through; None where it has none.

    Returns:
        ``report/ne/<task>`` and so on with intervals over users; of a baseline
        ``report/<baseline>/ne/<task>``, and of the model against it
        ``report/<baseline>/relative_ne_delta/<task>``, below 0 where the model is better. With a
        calibration ``report/ece/<task>`` before it, and ``report/calibrated/ne/<task>`` and so on
        after it. Of the model and the baselines ``list_auc/<task>`` and ``list_ndcg@10/<task>``,
        means over requests.
    """
    metrics = _measure_groups(run, manifest, frame, config)
    _measure_together(metrics, run, manifest, frame, beside, config)
    metrics |= _measure_lists(run, manifest, frame, beside, config)
    if calibration is not None:
        metrics |= _measure_calibrated(run, manifest, frame, calibration, config)
    if control is not None:
        metrics |= _compare_groups(run, manifest, frame, control, config)
    return metrics


def groups(frame: pl.DataFrame, manifest: DatasetManifest) -> dict[str, pl.DataFrame]:
    """All rows (name ``""``), and apart those whose item was and was not seen in the fit period."""
    seen = (pl.col("item") > 0) & (pl.col("item") < manifest.counts[FIT_ITEMS])
    parts = {"": frame, "seen_items": frame.filter(seen), "unseen_items": frame.filter(~seen)}
    return {name: rows for name, rows in parts.items() if len(rows)}


def _measure_groups(
    run: RunIdentity, manifest: DatasetManifest, frame: pl.DataFrame, config: EvaluateConfig
) -> Metrics:
    metrics: Metrics = {}
    split, prefix, tasks = Split(config.split), config.prefix, manifest.tasks
    for name, rows in groups(frame, manifest).items():
        place = f"{prefix}/{name}".rstrip("/")
        metrics |= with_protocol(measure(rows, tasks), place, run_protocol(run, rows, split))
    for truth in TRUTHS:
        if f"{truth}_{tasks[0].name}" in frame.columns:
            protocol = run_protocol(run, frame, split, truth)
            metrics |= with_protocol(measure(frame, tasks, truth), f"{prefix}/{truth}", protocol)
    return metrics


def _measure_calibrated(
    run: RunIdentity,
    manifest: DatasetManifest,
    frame: pl.DataFrame,
    calibration: Calibration,
    config: EvaluateConfig,
) -> Metrics:
    """Calibration errors before and after, and the other metrics of calibrated predictions.

    Over logged rows: no log of ours says with which probability it showed what it showed, which
    one would need to speak of all candidates.
    """
    tasks, protocol = manifest.tasks, run_protocol(run, frame, Split(config.split))
    after = replace(protocol, chosen_by=f"{protocol.chosen_by}; {calibration.described()}")
    place = f"{config.prefix}/{CALIBRATED}"
    metrics = with_protocol(measure(frame, tasks, CALIBRATED), place, after)
    for column, prefix, how in (
        ("prediction", config.prefix, protocol),
        (CALIBRATED, place, after),
    ):
        errors = with_protocol(calibration_errors(frame, tasks, column), prefix, how)
        for metric in errors.values():
            metric["protocol"] += f"; {BINS} bins of equally many rows"
        metrics |= errors
    return metrics


def _measure_together(
    metrics: Metrics,
    run: RunIdentity,
    manifest: DatasetManifest,
    frame: pl.DataFrame,
    beside: Beside,
    config: EvaluateConfig,
) -> None:
    """Add intervals to the model's metrics; the baselines', and what the model changes."""
    tasks, prefix, drawn = manifest.tasks, config.prefix, drawn_by(config.bootstrap)
    user, labels = frame["user"].to_numpy(), labels_of(frame, tasks)
    predictions = {_MODEL: scores(frame, tasks, "prediction"), **beside.predictions}
    together = MeasuredTogether(user, labels, predictions, tasks, config.bootstrap)
    for metric, interval in together.measured(_MODEL).items():
        place = f"{prefix}/{metric}"
        metrics[place] = with_interval(metrics[place], interval, drawn)
    same_rows = run_protocol(run, frame, Split(config.split))
    for name, predicted in beside.predictions.items():
        how = replace(same_rows, checkpoint="none", chosen_by=beside.how[name])
        values = measure_scores(predicted, labels, tasks)
        found = with_protocol(values, f"{prefix}/{name}", how)
        for metric, interval in together.measured(name).items():
            place = f"{prefix}/{name}/{metric}"
            found[place] = with_interval(found[place], interval, drawn)
        changes = together.changes(_MODEL, name)
        for metric, interval in changes.items():
            against = same_rows.measure(interval.value).as_dict()
            against["protocol"] = (
                f"{against['protocol']}; against {TASK_BASELINES[name]} ({beside.how[name]}), "
                "same rows"
            )
            found[f"{prefix}/{name}/{metric}"] = with_interval(against, interval, drawn)
        metrics |= found


def _measure_lists(
    run: RunIdentity,
    manifest: DatasetManifest,
    frame: pl.DataFrame,
    beside: Beside,
    config: EvaluateConfig,
) -> Metrics:
    """How the items of a request are ordered, by the model and by the baselines."""
    metrics: Metrics = {}
    tasks, drawn = manifest.tasks, drawn_by(config.bootstrap)
    own = run_protocol(run, frame, Split(config.split))
    scorers = {config.prefix: (scores(frame, tasks, "prediction"), own)}
    for name, predicted in beside.predictions.items():
        how = replace(own, checkpoint="none", chosen_by=beside.how[name])
        scorers[f"{config.prefix}/{name}"] = (predicted, how)
    for place, (predicted, protocol) in scorers.items():
        measured = list_metrics(frame, tasks, predicted)
        found = with_protocol({n: one.mean for n, one in measured.items()}, place, protocol)
        for name, one in measured.items():
            metric = f"{place}/{name}"
            requests = f"{int(one.per_user[:, 1].sum())} requests with both labels"
            found[metric]["protocol"] += f"; mean over {requests}"
            found[metric] = with_interval(found[metric], one.interval(config.bootstrap), drawn)
        metrics |= found
    return metrics


def _compare_groups(
    run: RunIdentity,
    manifest: DatasetManifest,
    frame: pl.DataFrame,
    control: Control,
    config: EvaluateConfig,
) -> Metrics:
    metrics: Metrics = {}
    parts = groups(control.frame, manifest)
    for name, rows in groups(frame, manifest).items():
        protocol = run_protocol(run, rows, Split(config.split))
        comparisons = compare(rows, parts[name], manifest.tasks, config.bootstrap)
        for metric, interval in comparisons.items():
            place = f"{config.prefix}/{name}/{metric}".replace("//", "/")
            metrics[place] = interval_with_protocol(
                interval, protocol, control.run_dir, control.checkpoint, config.bootstrap
            )
    return metrics


def run_protocol(
    run: RunIdentity, rows: pl.DataFrame, split: Split, truth: str | None = None
) -> Protocol:
    """How the predictions of a run, or the simulator's truth, were measured on ``rows``."""
    used = run.checkpoint
    return Protocol(
        dataset=run.dataset,
        split=split.value,
        rows=len(rows),
        users=rows["user"].n_unique(),
        seed=run.seed,
        checkpoint=f"{used.name} of step {used.step}" if truth is None else "none",
        chosen_by=used.chosen_by if truth is None else f"{truth} probabilities of the simulator",
    )
