"""Numbers with the sentence that says how they were got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from recsys.evaluation.identity import CheckpointUsed
from recsys.evaluation.list_metrics import LIST_TIE_RULES
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.ranking import TIE_RULE
from recsys.evaluation.retrieval_metrics import METRIC_NAMES
from recsys.evaluation.task_metrics import TIE_RULES

#: In a comparison of ``metrics.json``: the folder of the other run, and the checkpoint it was
#: measured at.
AGAINST = "against"
AGAINST_CHECKPOINT = "against_checkpoint"

#: How equal scores count, by the name of a metric; others do not rank.
_TIE_RULES = TIE_RULES | LIST_TIE_RULES | dict.fromkeys(METRIC_NAMES, TIE_RULE)


def with_protocol(values: Mapping[str, float], prefix: str, protocol: Protocol) -> Metrics:
    """``values`` by metric name, as they stand in ``metrics.json`` under ``prefix``."""
    metrics: Metrics = {}
    for name, value in values.items():
        metric = name.split("/")[0].partition("@")[0]
        said = replace(protocol, tie_rule=_TIE_RULES.get(metric, ""))
        metrics[f"{prefix}/{name}"] = said.measure(value).as_dict()
    return metrics


def drawn_by(bootstrap: Bootstrap) -> str:
    """How an interval was made, as the end of a protocol."""
    return (
        f"interval: {bootstrap.confidence:.0%} of {bootstrap.resamples} bootstrap resamples of "
        f"users, seed {bootstrap.seed}"
    )


def with_interval(metric: Mapping[str, Any], interval: Interval, drawn: str) -> dict[str, Any]:
    """A metric of ``metrics.json`` with its interval, whose making its protocol ends with."""
    ends = {"low": interval.low, "high": interval.high}
    return {**metric, **ends, "protocol": f"{metric['protocol']}; {drawn}"}


def interval_with_protocol(
    interval: Interval,
    protocol: Protocol,
    control: str,
    control_checkpoint: CheckpointUsed,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """A comparison of two runs, as it stands in ``metrics.json``."""
    sentence = (
        f"{protocol.sentence()}; against {control}, same rows, checkpoint "
        f"{control_checkpoint.name} of step {control_checkpoint.step} (chosen by: "
        f"{control_checkpoint.chosen_by}); {drawn_by(bootstrap)}"
    )
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "protocol": sentence,
        AGAINST: control,
        AGAINST_CHECKPOINT: asdict(control_checkpoint),
    }
