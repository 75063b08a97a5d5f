"""The folder of generations: what a cycle that was cut off left, what is kept, and going back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.errors import ConfigError
from recsys.recurring.generations import (
    REFRESHED,
    REFUSED,
    RUNNING,
    SERVED,
    WITHDRAWN,
    Generations,
)
from tests.recurring.made import folder_of, generation


def test_one_that_was_about_to_be_served_is_unfinished(tmp_path: Path) -> None:
    generations = folder_of(tmp_path / "made", generation(1), generation(2))
    assert generations.unfinished() is None
    third = generations.write(generation(3))  # killed before it was pointed to
    assert generations.unfinished() == third
    generations.serve(third)
    assert generations.unfinished() is None
    begun = generations.write(generation(4, state=SERVED, steps=2))
    begun = generations.write(replace(begun, state=RUNNING))
    assert generations.unfinished() == begun
    assert generations.newest_dataset() == "4"
    # refused, or withdrawn, is as finished as can be
    generations.write(replace(begun, state=REFUSED))
    assert generations.unfinished() is None


def test_the_first_one_may_be_unfinished(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "made")
    assert generations.unfinished() is None and generations.newest_dataset() is None
    with generations.held():
        first = generations.write(generation(1))
    assert generations.current() is None
    assert generations.unfinished() == first


def test_what_was_withdrawn_is_not_served_by_the_next_cycle(tmp_path: Path) -> None:
    generations = folder_of(tmp_path / "made", *map(generation, (1, 2, 3)))
    withdrawn, served = generations.roll_back()
    assert (withdrawn.number, withdrawn.state, served.number) == (3, WITHDRAWN, 2)
    assert generations.unfinished() is None
    # killed between its two steps: the same command goes on
    generations.serve(generations.write(generation(3)))
    generations.write(replace(generation(3), state=WITHDRAWN))
    assert generations.current().number == 3 and generations.unfinished() is None
    assert generations.roll_back()[1].number == 2
    assert generations.roll_back()[1].number == 1
    with pytest.raises(ConfigError, match="nothing to go back to"):
        generations.roll_back()


def test_so_many_served_and_so_many_refused_runs_are_kept(tmp_path: Path) -> None:
    states = [SERVED, REFUSED, SERVED, REFUSED, SERVED, REFUSED, SERVED]
    made = [generation(number, state=state) for number, state in enumerate(states, start=1)]
    generations = folder_of(tmp_path / "made", *made)
    half = generations.place(1) / "removed"  # killed while it was removed
    generations.run_dir(made[0]).rename(half)
    assert generations.remove_old(2) == [2, 3]
    assert not half.exists()
    kept = [one.number for one in made if generations.run_dir(one).exists()]
    assert kept == [4, 5, 6, 7]
    assert [one.number for one in generations.all()] == [1, 2, 3, 4, 5, 6, 7]


def test_cycles_without_a_run_are_neither_served_nor_removed(tmp_path: Path) -> None:
    made = [generation(1), generation(2, state=REFRESHED), generation(3)]
    made += [generation(4, state=REFRESHED), generation(5, state=REFRESHED, base=3)]
    generations = folder_of(tmp_path / "made", *made)
    assert generations.unfinished() is None and generations.newest_dataset() == "5"
    assert generations.remove_old(2) == []
    withdrawn, served = generations.roll_back()
    assert (withdrawn.number, served.number) == (3, 1)
    assert generations.unfinished() is None
