"""Which steps are kept, and what best.ckpt and last.ckpt link to."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import RecsysError
from recsys.evaluation.monitor import Monitor
from recsys.runs.checkpoints import BEST, LAST, Checkpoints, Validated, settle


def step(folder: Path, number: int) -> Path:
    """A checkpoint of a step, as a folder."""
    path = folder / f"step-{number:08d}.ckpt"
    path.mkdir()
    (path / "manifest.json").write_text(str(number))
    return path


def kept(folder: Path) -> dict[str, str]:
    """What is there: the step each name leads to."""
    return {path.name: (path / "manifest.json").read_text() for path in sorted(folder.iterdir())}


def test_links_lead_to_the_last_and_the_best_and_nothing_else_is_kept(tmp_path: Path) -> None:
    for number in (2, 4, 6, 8):
        step(tmp_path, number)
    (tmp_path / "step-00000008.ckpt.7.partial").write_text("of a process that was killed")
    settle(tmp_path, 6, [4, 6])
    assert kept(tmp_path) == {
        BEST: "4",
        LAST: "6",
        "step-00000004.ckpt": "4",
        "step-00000006.ckpt": "6",
    }
    step(tmp_path, 8)
    settle(tmp_path, 8, [8, 4])
    assert kept(tmp_path) == {
        BEST: "8",
        LAST: "8",
        "step-00000004.ckpt": "4",
        "step-00000008.ckpt": "8",
    }


def test_a_run_killed_between_the_links_is_put_right(tmp_path: Path) -> None:
    """``last.ckpt`` leads to step 4, whose state says that step 4 is the best."""
    step(tmp_path, 2)
    settle(tmp_path, 2, [2])
    step(tmp_path, 4)
    (tmp_path / LAST).unlink()
    (tmp_path / LAST).symlink_to("step-00000004.ckpt")
    settle(tmp_path, 4, [4])
    assert kept(tmp_path) == {BEST: "4", LAST: "4", "step-00000004.ckpt": "4"}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    step(tmp_path, 2)
    (tmp_path / f"{LAST}.tmp").mkdir()  # in the way of the new link
    with pytest.raises(RecsysError, match=rf"in {tmp_path} cannot be linked or removed \(.*{LAST}"):
        settle(tmp_path, 2, [2])


def test_a_copy_of_what_the_links_led_to_stays_until_there_is_better(tmp_path: Path) -> None:
    for name in (BEST, LAST):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("old")
    settle(tmp_path, 2, [2])
    assert kept(tmp_path) == {BEST: "old", LAST: "old"}
    step(tmp_path, 4)
    settle(tmp_path, 4, [2])
    assert kept(tmp_path) == {BEST: "old", LAST: "4", "step-00000004.ckpt": "4"}


def test_a_copied_folder_leads_to_its_own_checkpoints(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    step(first, 2)
    settle(first, 2, [2])
    shutil.copytree(first, tmp_path / "second", symlinks=True)
    shutil.rmtree(first)
    assert kept(tmp_path / "second")[BEST] == "2"


@pytest.mark.parametrize(
    ("keep", "highest", "expected"),
    [(1, False, [3]), (2, False, [3, 5]), (9, False, [3, 5, 4, 1, 2]), (2, True, [1, 4])],
)
def test_the_best_steps_in_order(keep: int, highest: bool, expected: list[int]) -> None:
    """The second is not defined, the fifth equals the third: the earlier one is better."""
    checkpoints = Checkpoints(Path(), 1, Monitor("val/x", highest), keep)
    for number, value in enumerate([0.9, math.nan, 0.2, 0.5, 0.2], start=1):
        checkpoints.best = checkpoints._with(Validated(number, {"val/x": value}))
    assert [one.step for one in checkpoints.best] == expected
    again = Checkpoints(Path(), 1, Monitor("val/x", highest), keep)
    again.load_state_dict(checkpoints.state_dict())
    assert [one.step for one in again.best] == expected


numbers = st.floats() | st.sampled_from([0.1, 0.5, math.nan, math.inf, -math.inf])


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6), st.integers(1, 6))
def test_what_is_not_defined_replaces_nothing_that_is(
    validated: list[tuple[float, float]], keep: int
) -> None:
    """However low its loss, and whichever came first."""
    checkpoints = Checkpoints(Path(), 1, Monitor("val/x"), keep)
    for number, (metric, loss) in enumerate(validated, start=1):
        one = Validated(number, {"val/x": metric, "val/loss": loss})
        checkpoints.best = checkpoints._with(one)
    defined = sorted(
        (metric, number)
        for number, (metric, _) in enumerate(validated, start=1)
        if math.isfinite(metric)
    )
    by_loss = sorted(
        (loss, number)
        for number, (metric, loss) in enumerate(validated, start=1)
        if not math.isfinite(metric) and math.isfinite(loss)
    )
    expected = [number for _, number in defined + by_loss][:keep]
    found = [one.step for one in checkpoints.best]
    assert found[: len(expected)] == expected
    assert len(found) == min(keep, len(validated))
