"""What a service counts of itself, over all its processes (Prometheus).

``prometheus_client`` decides when it is imported whether processes share: whoever starts workers
sets ``PROMETHEUS_MULTIPROC_DIR`` before.
"""

from __future__ import annotations

import os

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from psutil import pid_exists

from recsys.service.config import METRICS_FOLDER
from recsys.serving.funnel.candidates import Candidates
from recsys.serving.funnel.funnel import Outcome
from recsys.serving.funnel.ledger import Described

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)

REQUESTS = Counter("recsys_requests", "Answers by endpoint and status.", ["endpoint", "status"])
SECONDS = Histogram(
    "recsys_request_seconds", "From body to answer.", ["endpoint"], buckets=_SECONDS
)
FALLBACKS = Counter("recsys_fallbacks", "Lists made before that were given, by reason.", ["reason"])
BUSY = Counter("recsys_refused", "Requests that were told to come again.")
EVENTS = Counter("recsys_events", "Reported events: taken, or set aside by reason.", ["outcome"])
ITEMS = Counter(
    "recsys_items", "Announced items: taken, set aside by reason, or withdrawn.", ["outcome"]
)
ADVANCE = Counter(
    "recsys_in_advance_lists",
    "Lists at openings of the app: made, shown, wasted, declined since too many waited, failed.",
    ["outcome"],
)
ADVANCE_PAIRS = Counter(
    "recsys_in_advance_pairs", "Pairs scored for such lists: made, shown, wasted.", ["outcome"]
)
SIDES = Counter("recsys_user_sides", "Made by the second stage's model, or kept.", ["outcome"])
QUEUE = Gauge("recsys_queue", "Requests that wait for a funnel.", multiprocess_mode="livesum")
GENERATION = Gauge("recsys_generation", "That a worker serves.", multiprocess_mode="liveall")
POINT = Gauge("recsys_operating_point", "Workers at it.", ["point"], multiprocess_mode="livesum")
LEDGER_LOST = Gauge(
    "recsys_ledger_lost", "Requests that could not be noted.", multiprocess_mode="livesum"
)
_STAGE_SECONDS = Histogram(
    "recsys_stage_seconds", "Of a source or stage, per request.", ["stage"], buckets=_SECONDS
)
_IN = Counter("recsys_candidates_in", "Candidates that a stage was given.", ["stage"])
_OUT = Counter(
    "recsys_candidates_out", "Candidates that a stage left or a source found.", ["stage"]
)
_NOTHING = Counter("recsys_found_nothing", "Requests for which a source found nothing.", ["stage"])
_MISSED = Counter("recsys_missed", "Sources and stages that were late or failed.", ["stage"])


class StageMetrics:
    """Counts what funnels of one generation do.

    Args:
        described: names of their parts.
    """

    def __init__(self, described: Described) -> None:
        self._stages = [(_IN.labels(name), _OUT.labels(name)) for name in described.stages]
        self._sources = [(_OUT.labels(one), _NOTHING.labels(one)) for one in described.sources]
        self._seconds: dict[str, Histogram] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one request."""
        for name, seconds in outcome.seconds.items():
            if name not in self._seconds:
                self._seconds[name] = _STAGE_SECONDS.labels(name)
            self._seconds[name].observe(seconds)
        for name in outcome.missed:
            _MISSED.labels(name).inc()
        if outcome.sides_kept is not None:
            kept = int(outcome.sides_kept.sum())
            SIDES.labels("kept").inc(kept)
            SIDES.labels("made").inc(len(outcome.sides_kept) - kept)
        self._add_candidates(outcome.candidates)

    def _add_candidates(self, of: Candidates) -> None:
        for bit, (out, nothing) in enumerate(self._sources):
            found = int((of.sources >> np.uint32(bit) & 1).sum())
            out.inc(found)
            nothing.inc(found == 0)
        deaths = np.bincount(of.death + 1, minlength=len(self._stages) + 1)[1:]
        left = len(of.item)
        for (came, went), died in zip(self._stages, deaths.tolist(), strict=True):
            came.inc(left)
            left -= died
            went.inc(left)


def exposed() -> bytes:
    """What all processes have counted, as text."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)


def forget_the_dead() -> None:
    """Leave out what workers say of themselves that are no more."""
    folder = os.environ[METRICS_FOLDER]
    for name in os.listdir(folder):
        number = name.rpartition("_")[2].removesuffix(".db")
        if "_live" in name and number.isdecimal() and not pid_exists(int(number)):
            multiprocess.mark_process_dead(int(number), folder)
