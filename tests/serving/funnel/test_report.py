"""What a ledger says of its funnel, beside counting by hand."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.core.errors import DataError
from recsys.serving.funnel.candidates import Share
from recsys.serving.funnel.funnel import VALUE, Supply
from recsys.serving.funnel.ledger import Described, Ledger
from recsys.serving.funnel.report import report
from tests.serving.funnel.small_funnel import Broken, funnel, requests


def test_stages_and_sources_are_counted(tmp_path: Path) -> None:
    made = replace(funnel(), tolerant=True)
    made = replace(made, supplies=[*made.supplies, Supply(Broken(ValueError("gone")), Share(5))])
    of = requests([3, 1, 4, 1])
    with closing(Ledger(tmp_path, Described.of(made))) as ledger:
        outcome = made.run(of, 3)
        ledger.note(of, outcome)
    found, candidates = report(tmp_path), outcome.candidates
    assert found.requests == 4 and found.candidates == len(candidates.item) / 4
    for number, stage in enumerate(found.stages):
        gone = (candidates.death >= 0) & (candidates.death <= number)
        assert stage.name == made.stages[number]
        assert stage.left == pytest.approx((len(candidates.item) - gone.sum()) / 4)
        assert stage.ended == pytest.approx((candidates.death == number).sum() / 4)
    listed = candidates.position > 0
    half = found.sources[1]
    assert half.found == 15 and half.missed == 0
    assert half.listed == ((candidates.sources & 2 > 0) & listed).sum() / 4
    alone = (candidates.sources == 2) & listed
    assert half.value == pytest.approx(candidates.scores[VALUE][alone].sum() / 4)
    assert (found.sources[2].found, found.sources[2].missed) == (0, 1.0)
    milliseconds = {one.name: one.milliseconds for one in found.stages}
    assert milliseconds["value"] is None and np.isfinite(milliseconds["second"] or np.nan)


def test_a_ledger_without_requests_is_refused(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path, Described.of(funnel()))):
        pass
    with pytest.raises(DataError, match="no request yet"):
        report(tmp_path)
