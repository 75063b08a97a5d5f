"""Bad luck of one rank is told by all, in one sentence, and none waits for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.distributed.checkpoint.folder import MANIFEST
from recsys.distributed.checkpoint.load import open_checkpoint

from ..ranks import run_script

PROCESS = Path(__file__).with_name("trouble_process.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ranks of ``trouble_process.py`` have written and said."""
    folder = tmp_path_factory.mktemp("trouble")
    run_script(PROCESS, folder, timeout=900)
    return folder


def said(folder: Path, name: str) -> list[str]:
    """What the two ranks have raised."""
    return [(folder / f"{name}.{rank}").read_text() for rank in range(2)]


@pytest.mark.parametrize("full", [0, 1])
@pytest.mark.parametrize("how", ["", "_background"])
def test_a_full_disk_of_one_rank_ends_both_with_the_systems_reason(
    folder: Path, full: int, how: str
) -> None:
    """Torch alone would have said "unexpected pos 704 vs 598"."""
    first, second = said(folder, f"full_{full}{how}")
    assert first == second
    assert f"full_{full}.ckpt could not be written: [Errno 27] File too large" in first
    assert not (folder / f"full_{full}.ckpt" / MANIFEST).exists()
    assert said(folder, "whole") == ["nothing", "nothing"]
    open_checkpoint(folder / "step-00000007.ckpt").check()  # the one before is usable


@pytest.mark.parametrize("name", ["taken", "taken_background"])
def test_a_folder_that_the_first_rank_cannot_make_ends_both(folder: Path, name: str) -> None:
    first, second = said(folder, name)
    assert first == second
    assert f"{name}.ckpt could not be written: [Errno 17] File exists" in first


def test_the_disk_is_not_blamed_where_another_rank_has_died(folder: Path) -> None:
    said = (folder / "alone.1").read_text()
    assert "alone.ckpt could not be written" in said
    assert "where another process has ended, it says why, and do the same again" in said
    assert "make room" not in said


@pytest.mark.parametrize("shard", [0, 1])
def test_a_damaged_shard_ends_both(folder: Path, shard: int) -> None:
    first, second = said(folder, f"damaged_{shard}")
    assert first == second
    assert f"damaged_{shard}.ckpt/__{shard}_0.distcp is damaged" in first
