"""How many threads follow from cores, quota and load, and that what the user says stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.core import threads

ROOT = Path(__file__).resolve().parents[2]


def _machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, machine: int, load: float, quota: float | None
) -> None:
    for name in (threads.THREADS, threads._CHOSEN, *threads._WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(threads, "_quota", lambda *_: quota)


@pytest.mark.parametrize(
    ("cores", "machine", "load", "quota", "processes", "expected"),
    [
        (2, 2, 0.0, None, 1, 2),
        (2, 2, 0.4, None, 1, 2),  # 1.6 cores are free
        (2, 2, 0.9, None, 1, 1),
        (2, 2, 10.0, None, 1, 1),
        (4, 64, 12.0, None, 1, 4),
        (64, 64, 12.0, None, 1, 52),
        (64, 64, 0.0, 3.5, 1, 4),
        (64, 64, 0.0, 0.25, 1, 1),
        (16, 16, 0.0, None, 4, 4),
        (2, 2, 0.0, None, 8, 1),
    ],
)
def test_threads_are_those_of_the_free_cores(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    machine: int,
    load: float,
    quota: float | None,
    processes: int,
    expected: int,
) -> None:
    _machine(monkeypatch, cores, machine, load, quota)
    found = threads.find_threads(processes)
    assert (found.count, found.is_given) == (expected, False)
    assert f"{cores} of {machine} cores" in str(found) and f"load is {load:.1f}" in str(found)


def test_what_the_user_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, 8, 8, 0.0, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    threads.set_threads()
    threads.share_threads(2)
    assert os.environ["OMP_NUM_THREADS"] == "3" and threads._CHOSEN not in os.environ
    assert str(threads.find_threads()) == "3 by OMP_NUM_THREADS"


def test_what_was_chosen_is_shared_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, 8, 8, 0.0, None)
    environment = {"OMP_WAIT_POLICY": "active"}
    monkeypatch.setattr(os, "environ", environment)
    threads.set_threads()
    assert environment["OMP_NUM_THREADS"] == "8"
    threads.share_threads(2)
    assert environment["OMP_NUM_THREADS"] == "4"
    threads.set_threads()  # as a process that was started does
    assert environment["OMP_NUM_THREADS"] == "4"
    assert "GOMP_SPINCOUNT" not in environment  # the user has said how threads wait


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b", {"a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4.0),
        ("0::/elsewhere", {"cpu.max": "50000 100000"}, 0.5),  # as a container sees its own
        ("0::/a", {"a/cpu.max": "max 100000"}, None),
        (
            "3:memory:/m\n1:cpu,cpuacct:/a",
            {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_is_the_least_of_the_control_groups(
    tmp_path: Path, groups: str, files: dict[str, str], expected: float | None
) -> None:
    (tmp_path / "own").write_text(groups)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert threads._quota(tmp_path / "own", tmp_path) == expected


def test_torch_takes_what_was_chosen() -> None:
    program = (
        "from recsys.core import threads; threads.find_threads.__globals__['os'].getloadavg = "
        "lambda: (9999.0, 0, 0); threads.set_threads(); threads.keep_memory(); "
        "import torch; print(torch.get_num_threads(), float(torch.ones(3_000_000).sum()))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in (threads.THREADS,)}
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.split() == ["1", "3000000.0"]
