"""When a generation is not served: it is worse, its embeddings moved, or consumers lose by them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.evaluation.paired import Bootstrap
from recsys.recurring.config import GateConfig
from recsys.recurring.generations import COMPARED, MEASURED, TRIED, Generation
from recsys.systems.ranker.consumer import Consumer

#: Publishes the embeddings of an exported run as of a moment (ms): run folder, moment, store.
Publish = Callable[[Path, int, Path], object]


def tried_on(
    consumers: Sequence[str], served: Path, new: Path, publish: Publish, scratch: Path
) -> dict[str, dict[str, float]]:
    """What each consumer loses when the embeddings of a new run take the place of the served ones.

    Both towers are published as of the moment before the consumer's newest rows, since what is
    published now says of them.

    Args:
        consumers: run folders of rankers.
        served: the run whose embeddings are served.
        new: the one whose are to be; both are exported.
        publish: as above.
        scratch: a folder that is made and removed.

    Returns:
        Per consumer ``value``, ``low`` and ``high`` of the change of its mean NE in percent.
    """
    found = {}
    for name in consumers:
        consumer = Consumer(name)
        shutil.rmtree(scratch, ignore_errors=True)
        publish(served, consumer.as_of, scratch / "served")
        publish(new, consumer.as_of, scratch / "new")
        change = consumer.change(str(scratch / "served"), str(scratch / "new"), Bootstrap())
        found[name] = {"value": change.value, "low": change.low, "high": change.high}
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def refusal(gate: GateConfig, generation: Generation) -> str | None:
    """Why a generation is not served, by what is known of it so far; None where nothing is."""
    done, base = generation.done, generation.base
    change = done[MEASURED].get("change")
    if change is not None and _surely_above(change, gate.worse_percent):
        return (
            f"its mean NE is worse by {_interval(change)} than that of generation {base}; "
            f"gate.worse_percent={gate.worse_percent}"
        )
    if not np.isfinite(done[MEASURED]["ne"]):
        return "its mean NE is not defined"
    cosine = done.get(COMPARED, {}).get("cosine")
    if cosine is not None and gate.least_cosine is not None and cosine < gate.least_cosine:
        return (
            f"its user embeddings have a mean cosine of {cosine:.3f} with those of generation "
            f"{base}; gate.least_cosine={gate.least_cosine}"
        )
    for consumer, lost in done.get(TRIED, {}).get("consumers", {}).items():
        if _surely_above(lost, gate.skew_percent):
            return (
                f"the mean NE of {consumer} is worse by {_interval(lost)} with its embeddings than "
                f"with those of generation {base}; gate.skew_percent={gate.skew_percent}"
            )
    return None


def _surely_above(change: dict[str, Any], percent: float | None) -> bool:
    """Whether even the better end of an interval is; what is not defined is no pass."""
    if percent is None:
        return False
    surely = change["value"] if change["low"] is None else change["low"]
    return not np.isfinite(surely) or surely > percent


def _interval(change: dict[str, Any]) -> str:
    low, high = ("-" if one is None else f"{one:+.2f}" for one in (change["low"], change["high"]))
    return f"{change['value']:+.2f} % [{low}, {high}]"
