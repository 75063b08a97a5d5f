"""Retrieval metrics in the terminal."""

from __future__ import annotations

import pytest

from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.groups import GROUPS
from recsys.evaluation.retrieval_evaluation import WITH_POPULARITY
from recsys.reports.retrieval_tables import print_retrieval


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
