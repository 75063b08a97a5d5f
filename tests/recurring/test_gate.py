"""What the gate lets pass, and the sentences of what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest

from recsys.recurring.config import GateConfig
from recsys.recurring.gate import refusal
from recsys.recurring.generations import COMPARED, MEASURED, TRIED
from tests.recurring.made import generation

NAN = float("nan")


def changed(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("found", "gate", "sentence"),
    [
        ({}, {}, None),
        ({MEASURED: {"change": changed(2.0, 0.9, 3.1)}}, {}, None),  # it may be better than 1 %
        (
            {MEASURED: {"change": changed(2.0, 1.1, 2.9)}},
            {},
            r"its mean NE is worse by \+2.00 % \[\+1.10, \+2.90\] than that of generation 4",
        ),
        ({MEASURED: {"change": changed(2.0, None, None)}}, {}, r"worse by \+2.00 % \[-, -\]"),
        ({MEASURED: {"change": changed(NAN, NAN, NAN)}}, {}, "gate.worse_percent=1.0"),
        ({MEASURED: {"change": changed(9.0, 8.0, 10.0)}}, {"worse_percent": None}, None),
        ({MEASURED: {"ne": NAN}}, {"worse_percent": None}, "its mean NE is not defined"),
        ({COMPARED: {"cosine": 0.4}}, {}, None),
        ({COMPARED: {"cosine": 0.4}}, {"least_cosine": 0.5}, r"mean cosine of 0.400 with those"),
        ({TRIED: {"consumers": {"runs/a": changed(2.0, 0.5, 3.0)}}}, {}, None),
        (
            {TRIED: {"consumers": {"a": changed(0, -1, 1), "runs/b": changed(3.0, 2.0, 4.0)}}},
            {"skew_percent": 1.5},
            r"NE of runs/b is worse by \+3.00 % \[\+2.00, \+4.00\] with its embeddings than with "
            r"those of generation 4; gate.skew_percent=1.5",
        ),
        ({TRIED: {"consumers": {"runs/b": changed(NAN, NAN, NAN)}}}, {}, "NE of runs/b"),
    ],
)
def test_what_is_refused(found: dict[str, Any], gate: dict[str, Any], sentence: str | None) -> None:
    why = refusal(GateConfig(**gate), generation(5, done=found))
    assert (why is None) if sentence is None else re.search(sentence, why or ""), why
