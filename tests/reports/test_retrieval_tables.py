"""Retrieval metrics in the terminal."""

from __future__ import annotations

import pytest

from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.groups import GROUPS
from recsys.evaluation.retrieval_evaluation import WITH_POPULARITY
from recsys.reports.retrieval_tables import not_above_chance, print_retrieval


def test_headings_in_a_pipe_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    measured = {"value": 0.5, "low": 0.4, "high": 0.6, "queries": 12_345, "protocol": "by hand"}
    metrics = {
        "/".join(filter(None, ("report", scorer, group, "hits@10/all"))): measured
        for scorer in ("", WITH_POPULARITY)
        for group in ("", *GROUPS)
    }
    print_retrieval(metrics, EvaluateConfig("run"))
    printed = capsys.readouterr().out
    for group in ("all", *GROUPS):
        assert f"{group} (12,345)" in printed


@pytest.mark.parametrize(
    ("low", "chance", "found"),
    [
        (0.02, 0.01, None),
        (0.01, 0.01, "its hits@10 is 0.0300 [0.0100, 0.0500], that of a random ranking"),
        (0.01, 1.0, "its mrr is 0.0300 [0.0100, 0.0500]"),  # ten candidates: all are hits
        (None, 0.01, None),
    ],
)
def test_a_model_that_is_not_above_chance_is_said_to_be_so(
    low: float | None, chance: float, found: str | None
) -> None:
    measured = {"value": 0.03, "low": low, "high": 0.05}
    metrics = {f"report/{name}/all": measured for name in ("hits@10", "mrr")}
    at_random = {"hits@10": chance, "mrr": 0.2}
    metrics |= {f"report/chance/{name}/all": {"value": v} for name, v in at_random.items()}
    sentence = not_above_chance(metrics, "report", "all")
    assert sentence is None if found is None else sentence is not None and found in sentence
    assert not_above_chance({"report/hits@10/all": measured}, "report", "all") is None
