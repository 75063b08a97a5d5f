"""The processes of a run: started, brought together, and asked one after the other."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from recsys.core.console import message_console
from recsys.core.errors import ConfigError, RecsysError
from recsys.core.process_context import process_context
from recsys.core.quiet import quieten
from recsys.core.threads import share_threads
from recsys.distributed.gpus import gpu_of, own_place, refuse_shared_gpus

Result = TypeVar("Result")

#: How long a rank waits for what the first one does alone, such as preparing a log of any size. A
#: process that dies is noticed before, because its connections end; a node that does, by SLURM.
WAIT_FOR_THE_FIRST = timedelta(days=1)

#: Switches torch's record of the last collectives on, and has NCCL write it where it gives up. The
#: first is called the second from torch 2.13 on.
_FLIGHT_RECORDER = {
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
    "TORCH_FR_BUFFER_SIZE": "2000",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
}

#: What a launcher sends some time before the processes are killed: a run saves its state and ends.
STOP_SIGNAL = signal.SIGUSR1


def started_by_a_launcher() -> bool:
    """Whether torchrun (or ``on_processes``) or SLURM has started this process beside others."""
    return TorchElasticEnvironment.detect() or SLURMEnvironment.detect()


def is_first_rank() -> bool:
    """Whether this process is the first of those that a launcher has started, or started alone."""
    return not started_by_a_launcher() or launcher().global_rank() == 0


def launcher() -> ClusterEnvironment:
    """What has started this process beside others, and knows its place among them."""
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()


def on_processes(
    count: int, function: Callable[..., Result], *args: Any, logs: Path | None = None
) -> Result:
    """Call ``function`` in ``count`` new processes of this machine, as torchrun would.

    Each finds its place where torchrun puts it, in its environment. If one fails the others are
    ended. ``STOP_SIGNAL``, sent to this process, is handed on to them.

    Args:
        count: of the processes.
        function: what each of them calls.
        args: of the function.
        logs: a folder in which the ranks keep ``rank-<n>.log``, as launchers have them do. The
            first rank prints to the terminal, and has in its log what must be kept of a hang.
            None for no logs.

    Returns:
        What it returned on the first rank.

    Raises:
        RecsysError: that of the process that failed first, or a process was killed.
        RuntimeError: a process failed otherwise.
        KeyboardInterrupt, SystemExit: this process was sent SIGINT or another signal to end, or one
            that it has started was sent SIGTERM.
    """
    threads = share_threads(count)
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        start_method=process_context("lightning.pytorch", "torchrec").get_start_method(),
        max_restarts=0,
        monitor_interval=0.2,
    )
    # it logs the traceback of a process that fails; the error below says what there is to say
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        start = _Start(dict(os.environ), threads, Path(folder), logs)
        try:
            with _handing_on(STOP_SIGNAL):
                results = elastic_launch(settings, _call)(start, function, *args)
        except SignalException as stop:  # torchelastic's form of Ctrl-C and of SIGTERM
            if stop.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + stop.sigval) from None
        except ChildFailedError as error:
            if any(one.exitcode == 128 + signal.SIGTERM for one in error.failures.values()):
                raise SystemExit(128 + signal.SIGTERM) from None  # the others miss that rank
            rank, failure = error.get_first_failure()
            if failure.exitcode == -signal.SIGKILL:  # the others only say that they miss it
                raise RecsysError(
                    f"Process {rank} was killed by SIGKILL, as the system does where memory runs "
                    "out; a training goes on from its last checkpoint by resume=true."
                ) from None
            notes = [pickle.loads(path.read_bytes()) for path in Path(folder).glob("*.error")]
            if notes:  # the ranks that fail later mostly miss the first
                raise min(notes, key=lambda note: note[0])[1] from None
            raise RuntimeError(f"process {rank} died: {failure.message}") from None
    first: Result = results[0]
    return first


@contextmanager
def _handing_on(number: signal.Signals) -> Iterator[None]:
    """Send a signal that this process gets on to those it has started, until the block ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears of signals
        return

    def hand_on(received: int, frame: FrameType | None) -> None:
        for process in multiprocessing.active_children():
            if process.pid is not None:
                os.kill(process.pid, received)

    before = signal.signal(number, hand_on)
    try:
        yield
    finally:
        signal.signal(number, before)


#: Where a process that ``on_processes`` has started leaves the note of why it failed, and its log.
_notes: Path | None = None
_log: Path | None = None


def rank_log() -> Path | None:
    """The log of this rank; None where its launcher keeps what it prints."""
    return _log


@dataclass(frozen=True)
class _Start:
    """What a new process has of the one that starts it, whose environment of now it may not have.

    Attributes:
        environment: of that one.
        threads: that torch is to use.
        notes: the folder in which the process says why it fails.
        logs: as of ``on_processes``.
    """

    environment: dict[str, str]
    threads: int
    notes: Path
    logs: Path | None


def _call(start: _Start, function: Callable[..., Result], *args: Any) -> Result:
    """Call ``function`` in a new process; if it fails, leave a note of when and why."""
    global _notes
    _notes = start.notes
    os.environ.update(start.environment)
    torch.set_num_threads(start.threads)
    quieten()
    if start.logs is not None:
        _keep_log(start.logs)
    try:
        return function(*args)
    except Exception as error:
        _leave_note(error)
        raise


def _keep_log(logs: Path) -> None:
    """Send what this rank prints to its log; the first rank's goes to the terminal."""
    global _log
    rank = os.environ["RANK"]
    logs.mkdir(parents=True, exist_ok=True)
    _log = logs / f"rank-{rank}.log"
    if rank != "0":
        with _log.open("ab") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)


def _leave_note(error: Exception) -> None:
    """Note why this process fails where the one that has started it will look."""
    assert _notes is not None
    rank = os.environ["RANK"]
    note: Exception = error
    if not isinstance(error, RecsysError):
        if not (isinstance(error, OSError) and type(error).__module__ == "builtins"):
            # of a class of its own it may not survive pickling
            note = RuntimeError(f"process {rank} failed: {type(error).__name__}: {error}")
        note.add_note(traceback.format_exc())
    part = _notes / f"{rank}.part"
    part.write_bytes(pickle.dumps((time.time(), note)))
    part.rename(part.with_suffix(".error"))


def end_at_once(error: RecsysError) -> NoReturn:
    """End this process from any of its threads, whatever the others are in the middle of."""
    if _notes is not None:
        _leave_note(error)  # who has started it says so
    else:
        message_console().print(f"recsys: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)  # of what the user can mend


@contextmanager
def process_group(num_processes: int, backend: str, timeout_minutes: float) -> Iterator[None]:
    """Meet the other processes until the block ends.

    Args:
        num_processes: how many there must be.
        backend: ``gloo`` on CPUs, ``nccl`` on GPUs.
        timeout_minutes: how long one waits for the others.

    Raises:
        ConfigError: the launcher has started another number of processes, or two have one GPU.
    """
    timeout = timedelta(minutes=timeout_minutes)
    for name, value in _FLIGHT_RECORDER.items():
        os.environ.setdefault(name, value)
    if started_by_a_launcher():
        environment = launcher()
        world_size = environment.world_size()
        if world_size != num_processes:
            raise ConfigError(
                f"{world_size} process(es) were started, but trainer.devices times "
                f"trainer.num_nodes is {num_processes}; start one process per device on every node."
            )
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        if backend == "nccl":
            torch.cuda.set_device(gpu_of(environment.local_rank(), torch.cuda.device_count()))
        dist.init_process_group(
            backend, rank=environment.global_rank(), world_size=world_size, timeout=timeout
        )
    else:
        start_group_of_one(backend)
    try:
        if backend == "nccl":
            refuse_shared_gpus(from_all_ranks(own_place()))
        yield
    except BaseException:
        # the others hear of a failure when this process ends, having said why
        if dist.get_world_size() == 1:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def start_group_of_one(backend: str) -> None:
    """Make a group of this process alone, whatever others were started beside it."""
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def on_first_rank(function: Callable[[], Result], group: dist.ProcessGroup | None = None) -> Result:
    """Call ``function`` in the first process alone; every process gets what it returned.

    The others wait for it, up to ``WAIT_FOR_THE_FIRST``.

    Args:
        function: what to call.
        group: of all processes by gloo, by which they hear of it; None for ``hosts_group``.

    Raises:
        Exception: on every rank, what it raised on the first.
    """
    if not _several():
        return function()
    group = group or hosts_group()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    _wait_for_all(group)
    dist.broadcast_object_list(outcome, group=group)
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


def from_all_ranks(value: Result) -> list[Result]:
    """What every process has, in the order of the ranks; all must call it."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=hosts_group())
    return values


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Let the other processes into the block when the first one has left it."""
    if not _several():
        yield
        return
    group, first = hosts_group(), dist.get_rank() == 0
    if not first:
        _wait_for_all(group)
    yield
    if first:
        _wait_for_all(group)


#: The group of ``hosts_group``, and the default group beside which it was made.
_hosts: tuple[dist.ProcessGroup, dist.ProcessGroup | None] | None = None


def hosts_group() -> dist.ProcessGroup:
    """All processes, talking by gloo whatever the default group talks by.

    A wait of some length belongs here: NCCL's watchdog ends a job that waits for longer than its
    timeout, and what is sent on the devices comes after everything they have been given to do. The
    group is made by the first call, which every process must come to.
    """
    global _hosts
    world = dist.group.WORLD
    if _hosts is None or _hosts[1] is not world:
        _hosts = dist.new_group(backend="gloo", group_desc="hosts"), world
    return _hosts[0]


def _wait_for_all(group: dist.ProcessGroup) -> None:
    dist.monitored_barrier(group, timeout=WAIT_FOR_THE_FIRST)


def _several() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1
