"""Which trial is chosen, which are on the front, and that all of it is kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from recsys.core.errors import ArtifactError
from recsys.evaluation.paired import Interval
from recsys.online.tuning.config import Limits, Range, TuningConfig
from recsys.online.tuning.trials import (
    FILE,
    Confirmation,
    Trial,
    Tuning,
    begin,
    choose,
    pareto_front,
    read,
    write,
)

TUNING = TuningConfig(
    goal="value",
    constraints={"harm": Limits(at_most=2), "depth": Limits(at_least=-1, at_most=None)},
    parameters={"p(liked)": Range(0, 1)},
)


def trial(value: float, harm: float, depth: float) -> Trial:
    return Trial({"p(liked)": 0.5}, {}, {"value": value, "harm": harm, "depth": depth})


def test_limits_say_how_far_a_change_is_beyond_them() -> None:
    both = Limits(at_most=2, at_least=-1)
    assert [both.violation(change) for change in (3, 1.5, -4)] == [1, -0.5, 3]
    assert Limits(at_least=-1).violation(0.5) == -1.5
    assert trial(1, 2, -1).is_feasible(TUNING)
    assert not trial(1, 2.1, 0).is_feasible(TUNING)


def test_the_highest_goal_within_the_limits_is_chosen() -> None:
    best = trial(5, 1, 0)
    assert choose([trial(9, 3, 0), best, trial(4, 0, 0), trial(math.nan, 0, 0)], TUNING) is best
    least = trial(1, 2.5, -1.5)  # 1 in all
    assert choose([trial(9, 4, 0), least, trial(8, 2, -4)], TUNING) is least
    assert choose([trial(1, math.nan, 0)], TUNING) is None


def test_no_other_trial_beats_one_of_the_front_in_everything() -> None:
    highest, middle, harmless = trial(9, 5, 0), trial(5, 1, 0), trial(1, 0, 0)
    deeper = trial(4, 1, 3)
    beaten = [trial(5, 2, 0), trial(4, 1, 2.9), trial(math.nan, 0, 9)]
    trials = [harmless, *beaten, highest, middle, deeper]
    assert pareto_front(trials, TUNING) == [highest, middle, deeper, harmless]


def test_a_tuning_is_read_as_it_was_written(tmp_path: Path) -> None:
    settings = {"seed": 1, "users": None}
    begin(tmp_path, {"seed": 9})
    assert read(tmp_path, settings) is None
    confirmed = Confirmation(5, 9, {"value": Interval(1.0, math.nan, 2.0)})
    some = (trial(2, 1, 0), trial(3, math.nan, 0))
    write(tmp_path, Tuning(settings, trial(0, 0, 0), some, confirmed), TUNING)
    assert "NaN" not in (tmp_path / FILE).read_text()
    found = read(tmp_path, settings)
    assert found is not None and found.trials[0] == some[0] and len(found.trials) == 2
    assert math.isnan(found.trials[1].changes["harm"])
    assert read(tmp_path / "elsewhere", settings) is None
    with pytest.raises(ArtifactError, match="a tuning with another seed"):
        read(tmp_path, {"seed": 2, "users": None})
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(ArtifactError, match="damaged"):
        read(tmp_path, settings)
