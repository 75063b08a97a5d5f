"""What preparing takes: of all processes of a command, and by a line through small logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.cli import bench

prepare_engine = bench._load("prepare_engine")
from benchmarks._watched import Watched, python, watch  # noqa: E402  (bench makes it importable)

HOLD = """
import time
held = bytearray(60 << 20)
held[::4096] = b"x" * len(held[::4096])
time.sleep(1.5)
"""


def test_a_command_is_watched_with_the_processes_it_starts(tmp_path: Path) -> None:
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    watched = watch(python("-c", start), tmp_path / "printed")
    assert watched.peak_mib > 60
    assert watched.seconds > 1.5
    with pytest.raises(AssertionError, match="failed: a sentence"):
        watch(python("-c", "raise SystemExit('a sentence')"), tmp_path / "printed")


def test_the_line_by_hand() -> None:
    """3 s at 10 and 5 s at 20 events are 21 s at 100."""
    seconds = {10: 3.0, 20: 5.0, 100: 20.0}
    measured = {n: {"one": Watched(one, 2 * one, 0)} for n, one in seconds.items()}
    figures = prepare_engine._predictions(measured)["one"]
    assert figures["predicted_seconds"] == pytest.approx(21)
    assert figures["predicted_processor_seconds"] == pytest.approx(42)


def test_one_process_and_ray_are_measured_on_a_tiny_log(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    config = prepare_engine.Config(
        events=(2_000,),
        items=50,
        partitions=2,
        object_store_mb=80,
        peers=False,
        folder=str(tmp_path),
    )
    figures = prepare_engine.run(config)
    assert set(figures["measured"]["2000"]) == {"one process", "Ray, 1 worker", "Ray, 2 workers"}
