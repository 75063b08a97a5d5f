"""The ledger: what is noted is read back to the bit, replayed, explained, or counted as lost."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.serving.funnel.funnel import Scoring
from recsys.serving.funnel.ledger import Described, Ledger, LedgerConfig, explain, noted
from recsys.serving.funnel.replay import replay
from tests.serving.funnel.small_funnel import Broken, funnel, requests

LIKE = LedgerConfig(requests_per_file=3, seconds_per_file=60.0)


def written(folder: Path, users: list[int]) -> None:
    made = funnel()
    with closing(Ledger(folder, Described.of(made), LIKE)) as ledger:
        for number, user in enumerate(users):
            of_one = replace(requests([user]), number=np.array([number]))
            ledger.note(of_one, made.run(of_one, 5), "generation 7")
    assert ledger.lost == 0


def test_what_is_noted_is_read_back_and_replayed_to_the_bit(tmp_path: Path) -> None:
    users = [3, 1, 4, 1, 5]
    written(tmp_path / "ledger", users)
    assert len(list((tmp_path / "ledger").glob("*.parquet"))) == 2
    found = list(noted(tmp_path / "ledger"))
    assert np.concatenate([of.user for of, _ in found]).tolist() == users
    for of, outcome in found:
        again = funnel().run(of, 5)
        assert again.lists(5).tolist() == outcome.lists(5).tolist()
        for stage, scores in again.candidates.scores.items():
            assert outcome.candidates.scores[stage].tobytes() == scores.tobytes()
    assert replay(tmp_path / "ledger", funnel(), 5) == []


def test_a_replay_names_the_requests_that_come_out_otherwise(tmp_path: Path) -> None:
    written(tmp_path, [3, 1, 4])
    changed = funnel()
    value = replace(changed.value, groups={1: changed.value.model}, column="region")
    assert replay(tmp_path, replace(changed, value=value), 5) == []
    assert replay(tmp_path, changed, 4) == [0, 1, 2]
    with pytest.raises(DataError, match="other sources or stages"):
        replay(tmp_path, replace(changed, filters=[]), 5)


def test_a_request_is_explained(tmp_path: Path) -> None:
    written(tmp_path, [3, 1, 4])
    made = funnel()
    outcome = made.run(requests([1]), 5)
    shown = explain(tmp_path, 1)
    assert shown.columns[-2:] == ["like", "hide"]
    assert shown["item"].head(5).to_list() == outcome.lists(5)[0].tolist()
    assert shown["position"].head(6).to_list() == [1, 2, 3, 4, 5, None]
    assert shown["ended"].head(5).is_null().all() and shown["ended"][5] == "list"
    assert set(shown["ended"].drop_nulls()) <= set(made.stages)
    assert {tuple(one) for one in shown["sources"]} == {
        ("all",),
        ("late half",),
        ("all", "late half"),
    }
    with pytest.raises(DataError, match="no request 9; it has some from 0 to 2"):
        explain(tmp_path, 9)


def test_what_a_stage_missed_is_noted_and_not_replay(tmp_path: Path) -> None:
    made = replace(funnel(), second=Scoring(Broken(ValueError("gone")), 8), tolerant=True)
    with closing(Ledger(tmp_path, Described.of(made))) as ledger:
        for one in (made, funnel()):
            ledger.note(requests([2]), one.run(requests([2]), 5))
    found = [outcome.missed for _, outcome in noted(tmp_path)]
    assert found == [{}, {"second": "ValueError: gone"}]
    assert replay(tmp_path, funnel(), 5) == []


def test_requests_without_candidates_are_noted(tmp_path: Path) -> None:
    made = replace(funnel(), supplies=[])
    with closing(Ledger(tmp_path, Described.of(made))) as ledger:
        ledger.note(requests([2, 3]), made.run(requests([2, 3]), 5))
    ((of, outcome),) = noted(tmp_path)
    assert len(of) == 2 and outcome.candidates.lengths.tolist() == [0, 0]
    assert explain(tmp_path, 1).is_empty()


def test_a_full_disk_loses_the_record_and_nothing_else(tmp_path: Path) -> None:
    made = funnel()
    ledger = Ledger(tmp_path, Described.of(made))
    # a folder in the place of the file: it cannot be written
    (tmp_path / f"{ledger._begun}-{os.getpid()}-000000.parquet").mkdir()
    ledger.note(requests([1, 2]), made.run(requests([1, 2]), 5))
    ledger.close()
    assert ledger.lost == 2 and ledger.problem is not None


def test_a_ledger_of_another_funnel_or_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "mine", [1])
    written(tmp_path / "mine", [2])  # the same funnel goes on
    other = replace(funnel(), filters=[])
    with pytest.raises(DataError, match="others; name another folder"):
        Ledger(tmp_path / "mine", Described.of(other))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        Ledger(tmp_path, Described.of(other))
    with pytest.raises(DataError):
        list(noted(tmp_path / "nothing"))
