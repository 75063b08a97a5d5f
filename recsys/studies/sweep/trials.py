"""The trials of a sweep, kept in sweep.json so that a sweep that was killed goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import polars as pl

from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.runs.metrics_log import METRICS_LOG, read_metrics

_KIND = "list of trials"


class TrialState(StrEnum):
    """How far a trial is."""

    BEGUN = "begun"
    FINISHED = "finished"
    STOPPED = "stopped early"
    DIVERGED = "diverged"
    FAILED = "failed"


#: States of trials whose values do not count.
BAD_ENDS = (TrialState.DIVERGED, TrialState.FAILED)


@dataclass
class Trial:
    """One training of a sweep.

    Attributes:
        name: its run folder within the sweep's.
        parameters: what the search chose.
        state: how far it is.
        history: the metric at each validation so far.
        training_seconds: wall time of `recsys train`; 0 where nobody waited for it.
        problem: why it failed or diverged.
        started: when its training was started last, in seconds of ``time.time``.
    """

    name: str
    parameters: dict[str, Any]
    state: TrialState = TrialState.BEGUN
    history: list[float] = field(default_factory=list)
    training_seconds: float = 0.0
    problem: str | None = None
    started: float | None = None

    @property
    def is_measured(self) -> bool:
        """Whether its values count: it was validated, and has come to no bad end since."""
        return bool(self.history) and self.state not in BAD_ENDS


def read_trials(path: Path, settings: Sequence[str], parameters: Mapping[str, Any]) -> list[Trial]:
    """The trials so far of the sweep that ``path`` keeps; none where it is not there.

    Raises:
        ArtifactError: the file is damaged, or its trials had other settings.
    """
    if not path.is_file():
        return []
    content = read_json(path, _KIND, ArtifactError, "delete its folder.")
    trials = [_trial(one) for one in content["trials"]]
    kept = {"settings": content["settings"], "parameters": content["parameters"]}
    for name, wanted in (("settings", list(settings)), ("parameters", dict(parameters))):
        if kept[name] != wanted:
            raise ArtifactError(
                f"{path.parent} holds a sweep with other {name} ({kept[name]}, now {wanted}); "
                "delete that folder, or give this sweep another out=."
            )
    return trials


def write_trials(path: Path, head: Mapping[str, Any], trials: Sequence[Trial]) -> None:
    """Replace ``path`` by ``head`` and the trials in one atomic step."""
    content = {**head, "trials": [vars(trial) for trial in trials]}
    write_json(path, _KIND, content)


def read_history(run_dir: Path, metric: str) -> list[float]:
    """The metric at each validation of a run so far; values that are not defined are left out."""
    if not (run_dir / METRICS_LOG).is_file():
        return []
    log = read_metrics(run_dir).filter((pl.col("metric") == metric) & pl.col("value").is_finite())
    return log.sort("step")["value"].to_list()


def _trial(content: Mapping[str, Any]) -> Trial:
    return Trial(**{**content, "state": TrialState(content["state"])})
