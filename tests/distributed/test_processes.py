"""Processes that are started here: one result, one error, nobody left waiting."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from recsys.core.errors import ConfigError, DataError, RecsysError
from recsys.distributed.processes import (
    STOP_SIGNAL,
    first_rank_first,
    is_first_rank,
    on_first_rank,
    on_processes,
    process_group,
)


def meet_and_fail(how: str) -> str:
    """What the two ranks of a test do; with ``how`` it says what goes wrong."""
    with process_group(2, "gloo", timeout_minutes=1):
        rank = dist.get_rank()
        value = on_first_rank(lambda: f"of rank {rank}")
        if how == "one rank's data" and rank == 1:
            raise DataError("row 7 of rank 1 is damaged")
        if how == "one rank's bug" and rank == 1:
            raise ZeroDivisionError("a bug of rank 1")
        if how == "one rank's disk" and rank == 1:
            (Path(__file__) / "below a file").mkdir()
        if how == "one rank is killed" and rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "first rank's data":
            with pytest.raises(DataError, match="nothing there"):
                on_first_rank(_nothing_there)
            return "both ranks heard of it"
        dist.barrier()  # rank 0 would wait here for the rest of its life
    return value


def _nothing_there() -> None:
    raise DataError("nothing there")


def seen_environment(name: str) -> tuple[str | None, int]:
    """What a process that is started finds."""
    return os.environ.get(name), torch.get_num_threads()


def test_processes_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the first time that processes were started."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert on_processes(1, seen_environment, "SAID_LATER") == (None, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("SAID_LATER", "now")
    assert on_processes(1, seen_environment, "SAID_LATER") == ("now", 2)


@pytest.mark.slow
def test_the_first_rank_s_result_comes_back() -> None:
    assert on_processes(2, meet_and_fail, "") == "of rank 0"


def wait_beside_a_silent_device(folder: Path) -> None:
    """What both ranks of a test do, in a default group that moves nothing: it stands for NCCL."""
    import torch.testing._internal.distributed.fake_pg  # noqa: F401  # makes the backend known
    from torch.distributed.rendezvous import rendezvous

    store, rank, world_size = next(rendezvous("env://"))
    dist.init_process_group("fake", store=store, rank=rank, world_size=world_size)
    told = on_first_rank(lambda: f"of rank {rank}")
    assert told == "of rank 0", f"rank {rank} was told {told}"
    with pytest.raises(DataError, match="nothing there"):
        on_first_rank(_nothing_there)
    prepared = folder / "prepared"
    with first_rank_first():
        assert prepared.exists() == bool(rank)
        prepared.touch()


def test_the_first_rank_is_waited_for_by_the_hosts_and_not_by_the_devices(tmp_path: Path) -> None:
    """NCCL's watchdog ends a job that waits long in it, as for the first rank to prepare a log."""
    on_processes(2, wait_beside_a_silent_device, tmp_path)


def test_an_error_of_one_rank_ends_the_others() -> None:
    with pytest.raises(DataError, match="row 7 of rank 1 is damaged"):
        on_processes(2, meet_and_fail, "one rank's data")


def test_what_the_system_refuses_one_rank_stays_what_it_is() -> None:
    with pytest.raises(NotADirectoryError) as refused:
        on_processes(2, meet_and_fail, "one rank's disk")
    assert refused.value.filename == str(Path(__file__) / "below a file")
    assert "in meet_and_fail" in refused.value.__notes__[0]


def test_a_killed_rank_is_named_and_not_those_that_miss_it() -> None:
    with pytest.raises(RecsysError, match="Process 0 was killed by SIGKILL"):
        on_processes(2, meet_and_fail, "one rank is killed")


def test_the_first_rank_is_known_from_what_a_launcher_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_first_rank()
    # torchrun's, by which Lightning knows it
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert is_first_rank() == (rank == "0")


def signal_to(starter: int, number: int) -> None:
    """What Ctrl-C or SIGTERM does to the process that has started this one."""
    os.kill(starter, number)
    time.sleep(600)  # until the parent ends this process


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_all_as_it_ends_one_process(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    with pytest.raises(raised):
        on_processes(1, signal_to, os.getpid(), int(number))


def be_told_to_stop(starter: int) -> str:
    """What happens to a process if the one that has started it is told to stop."""
    told: list[int] = []
    signal.signal(STOP_SIGNAL, lambda number, frame: told.append(number))
    os.kill(starter, STOP_SIGNAL)
    deadline = time.monotonic() + 60
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    return "told" if told else "not told"


def test_the_signal_to_stop_is_handed_on() -> None:
    before = signal.getsignal(STOP_SIGNAL)
    assert on_processes(1, be_told_to_stop, os.getpid()) == "told"
    assert signal.getsignal(STOP_SIGNAL) is before


@pytest.mark.slow
def test_an_unexpected_error_names_its_rank() -> None:
    with pytest.raises(RuntimeError, match="a bug of rank 1"):
        on_processes(2, meet_and_fail, "one rank's bug")


@pytest.mark.slow
def test_an_error_of_the_first_rank_is_everybody_s() -> None:
    assert on_processes(2, meet_and_fail, "first rank's data") == "both ranks heard of it"


def test_another_number_of_processes_than_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConfigError, match=r"4 process\(es\) were started, but .* is 2"),
        process_group(2, "gloo", timeout_minutes=1),
    ):
        pass


def test_one_process_meets_itself() -> None:
    assert "RANK" not in os.environ
    with process_group(1, "gloo", timeout_minutes=1):
        assert dist.get_world_size() == 1
        assert on_first_rank(lambda: 3) == 3
    assert not dist.is_initialized()
