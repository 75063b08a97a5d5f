"""What a run goes on from where ``last.ckpt`` is lost or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.core.errors import ArtifactError
from recsys.distributed.checkpoint.plugins import write_file
from recsys.runs.checkpoints import CHECKPOINTS, LAST, settle
from recsys.runs.folder import go_back_to_checkpoint
from recsys.runs.whole_checkpoints import another_named, newest_whole


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run whose steps 2, 4 and 10 are saved."""
    folder = tmp_path / CHECKPOINTS
    for step in (2, 4, 10):
        content: dict[str, Any] = {"state_dict": {"weight": torch.ones(9)}, "global_step": step}
        write_file(content, folder / f"step-{step:08d}.ckpt")
    settle(folder, 10, [4, 2])
    return tmp_path


def cut_short(run_dir: Path, step: int) -> None:
    """Damage a checkpoint."""
    path = run_dir / CHECKPOINTS / f"step-{step:08d}.ckpt"
    path.write_bytes(path.read_bytes()[:-100])


def test_a_lost_link_or_checkpoint_is_replaced_by_the_newest_whole_one(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_dir / CHECKPOINTS
    assert go_back_to_checkpoint(run_dir) == folder / LAST
    assert not capsys.readouterr().err
    (folder / LAST).unlink()
    assert go_back_to_checkpoint(run_dir) == folder / "step-00000010.ckpt"
    (folder / LAST).symlink_to("step-00000012.ckpt")
    cut_short(run_dir, 10)
    assert go_back_to_checkpoint(run_dir) == folder / "step-00000004.ckpt"
    assert "going on from the newest whole one, step-00000004.ckpt" in capsys.readouterr().err


def test_a_damaged_one_is_kept_and_the_newest_whole_one_named(run_dir: Path) -> None:
    cut_short(run_dir, 10)
    advice = r"is damaged .* `ln -sfn step-00000004\.ckpt .*last\.ckpt` and `recsys train run_dir="
    with pytest.raises(ArtifactError, match=advice) as raised:
        go_back_to_checkpoint(run_dir)
    assert "checkpoint=best" not in str(raised.value)  # no setting of a training
    for step in (2, 4):
        cut_short(run_dir, step)
    with pytest.raises(ArtifactError, match="no other checkpoint of the run is whole"):
        go_back_to_checkpoint(run_dir)
    assert newest_whole(run_dir / CHECKPOINTS) is None


def test_other_errors_stay_as_they_are(run_dir: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^another model$"), another_named(run_dir):
        raise ArtifactError("another model")


def test_a_run_without_checkpoints_begins_anew_and_one_that_lost_them_does_not(
    run_dir: Path,
) -> None:
    for path in (run_dir / CHECKPOINTS).glob("step-*"):
        path.unlink()
    with pytest.raises(ArtifactError, match=r"no other checkpoint in .* is whole; put it back"):
        go_back_to_checkpoint(run_dir)
    (run_dir / CHECKPOINTS / LAST).unlink()
    assert go_back_to_checkpoint(run_dir) is None
