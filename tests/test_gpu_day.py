"""`scripts/gpu_day.sh` on a machine without a GPU: every part starts and writes its file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "gpu_day.sh"
PARTS = (
    *("doctor", "lookup", "gpu_tests", "losses", "steps", "kernels", "publish"),
    "two_processes",
)


def gpu_day(out: Path, **settings: str) -> tuple[int, dict[str, str]]:
    """The script's code, and the files it has written, by part and in their order."""
    environment = os.environ | {"DEVICE": "cpu", "PYTHON": sys.executable} | settings
    finished = subprocess.run(["bash", SCRIPT, out], env=environment, capture_output=True)
    files = sorted(out.iterdir())
    return finished.returncode, {file.stem.split("-")[1]: file.read_text() for file in files}


def test_parts_for_which_no_time_is_left_say_so(tmp_path: Path) -> None:
    code, files = gpu_day(tmp_path / "out", LIMIT="0")
    assert code == 1
    assert tuple(files) == PARTS  # at most 8 files, in order of worth
    for text in files.values():
        assert text == "not started: 0 seconds are over\ncut off after 0 s\n"


def test_a_part_that_fails_says_so_and_the_next_one_runs(tmp_path: Path) -> None:
    settings = {"PARTS": "doctor lookup", "PYTHON": "/nowhere/python"}
    code, files = gpu_day(tmp_path / "out", **settings)
    assert code == 1 and tuple(files) == ("doctor", "lookup")
    for text in files.values():
        assert "/nowhere/python" in text
        assert text.splitlines()[-1].startswith("FAILED with code 127 after")


@pytest.mark.slow  # a training of every system, and a dozen starts of the command
def test_every_part_ends_well_without_a_gpu(tmp_path: Path) -> None:
    code, files = gpu_day(tmp_path / "out")
    for part in PARTS:
        assert files[part].splitlines()[-1].startswith("ended well"), files[part][-2000:]
    assert code == 0
    assert "FBGEMM" in files["lookup"] and "hstu" in files["losses"] and "HSTU" in files["kernels"]
    assert "skipped" in files["gpu_tests"]
    assert "by two ranks on cpu" in files["two_processes"]
