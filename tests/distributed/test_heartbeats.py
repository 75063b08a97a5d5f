"""Who is named when nobody comes further, and who is told to be slow."""

from __future__ import annotations

import inspect
import sys
import time
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from recsys.distributed.heartbeats import Beat, StepTimes, hanging
from recsys.distributed.processes import start_group_of_one
from recsys.distributed.whereabouts import flight_record, open_collective, whereabouts

WAITS = Beat(
    host="a",
    count=7,
    phase="step 4",
    seconds=61.0,
    place="training_step (recsys/module.py:5)",
    exchange="all_reduce",
    collective=None,
    log="",
    own_seconds=0.0,
    steps=3,
)
COMPUTES = replace(
    WAITS, host="b", exchange=None, place="forward (mine/net.py:9)", log="rank-1.log"
)


def test_nobody_hangs_while_one_rank_comes_further() -> None:
    assert hanging([WAITS, replace(COMPUTES, seconds=59.0)], 60, 10) is None


def test_the_rank_that_waits_for_nobody_is_named_and_not_those_that_wait() -> None:
    sentence = hanging([WAITS, COMPUTES, WAITS], 60, 10)
    assert sentence is not None
    assert sentence.startswith(
        "Rank 1 (b) hangs: for 61 s it has been in step 4, in forward (mine/net.py:9); its stack "
        "is in rank-1.log. The others wait: rank 0 in step 4, all_reduce; rank 2 in step 4, "
    )
    assert "strategy.hang_minutes=1" in sentence


def test_the_rank_that_is_behind_is_named_although_it_waits() -> None:
    behind = replace(WAITS, host="b", count=6, phase="what follows step 3", exchange="barrier")
    sentence = hanging([WAITS, behind], 60, 10)
    assert sentence is not None and sentence.startswith("Rank 1 (b) hangs: for 61 s")
    assert "waiting in barrier" in sentence


def test_ranks_that_wait_in_different_exchanges_are_all_told() -> None:
    other = replace(WAITS, host="b", exchange="barrier", collective="gloo:barrier, number 3")
    sentence = hanging([WAITS, other], 60, 10)
    assert sentence is not None
    assert "Rank 0 (a) hangs" in sentence and "Rank 1 (b) hangs" in sentence
    assert "waiting in all_reduce;" in sentence
    assert "waiting in barrier — gloo:barrier, number 3;" in sentence


def test_a_process_that_stands_still_is_named_whatever_it_wrote_last() -> None:
    gone = replace(WAITS, host="b", count=9, seconds=1.0, silent=70.0)
    sentence = hanging([WAITS, gone, COMPUTES], 60, 10)
    assert sentence is not None
    assert sentence.startswith(
        "Rank 1 (b) hangs: it was in step 4 when it was last heard of, 70 s ago; its process "
        "stands still or its node is gone. The others wait: rank 0 in step 4, all_reduce; rank 2 "
    )


def test_a_thread_is_found_where_it_is() -> None:
    found = whereabouts(sys._getframe())
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    assert found.exchange is None
    name = "test_a_thread_is_found_where_it_is"
    assert found.place == f"{name} (tests/distributed/test_heartbeats.py:{line})"


def test_a_thread_in_a_collective_is_said_to_wait_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    start_group_of_one("gloo")
    try:
        watch = dist.distributed_c10d.AllreduceOptions

        def looked() -> object:
            seen.append(whereabouts(sys._getframe()))
            return watch()

        monkeypatch.setattr(dist.distributed_c10d, "AllreduceOptions", looked)
        dist.all_reduce(torch.ones(3))
    finally:
        dist.destroy_process_group()
    assert [one.exchange for one in seen] == ["all_reduce"]


def test_no_collective_is_open_where_all_have_ended() -> None:
    start_group_of_one("gloo")
    try:
        dist.all_reduce(torch.ones(3))
        if flight_record() is None:
            pytest.skip("this torch records NCCL's collectives alone")
        deadline = time.monotonic() + 60  # the recorder hears of an end from another thread
        while open_collective() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        dist.destroy_process_group()


def test_a_rank_is_slow_by_its_own_time_against_the_median() -> None:
    even = StepTimes(step=9, own=(0.2, 0.21, 0.19))
    assert even.remark("abc") is None
    assert StepTimes(step=9, own=(0.2, 0.5)).median == 0.2
    remark = StepTimes(step=9, own=(0.2, 0.21, 0.5)).remark("abc")
    assert remark == (
        "Rank 2 (c) is slow: a step takes it 500 ms without waiting for others, the median rank "
        "210 ms."
    )
