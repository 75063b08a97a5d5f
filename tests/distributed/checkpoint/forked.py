"""Ranks as forks of a script that has imported everything; pytest itself has too many threads."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def start(world_size: int, function: Callable[[int], None]) -> list[int]:
    """Call ``function(rank)`` in so many processes, in torchrun's environment; their ids."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
    }
    processes = []
    for rank in range(world_size):
        process = os.fork()
        if process == 0:
            os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
            _end(function, rank)
        processes.append(process)
    return processes


def _end(function: Callable[[int], None], rank: int) -> None:
    code = 1
    try:
        function(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(world_size: int, function: Callable[[int], None]) -> None:
    """Call ``function(rank)`` on so many ranks; all must end well."""
    codes = [os.waitpid(process, 0)[1] for process in start(world_size, function)]
    assert codes == [0] * world_size, codes


def run_and_kill(
    world_size: int, function: Callable[[int], None], ready: Callable[[], bool], seed: int
) -> bool:
    """Kill all ranks by SIGKILL at a random moment after ``ready``; whether they still ran."""
    processes = start(world_size, function)
    deadline = time.monotonic() + 240
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    for process in processes:
        os.kill(process, signal.SIGKILL)
    codes = [os.waitpid(process, 0)[1] for process in processes]
    return any(code == signal.SIGKILL for code in codes)


def being_written(folder: Path) -> bool:
    """Whether a checkpoint is there that is not whole yet."""
    return any(not (path / "manifest.json").exists() for path in folder.glob("step-*.ckpt"))
