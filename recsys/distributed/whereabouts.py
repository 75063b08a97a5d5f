"""What a rank is doing, read off a thread's Python stack and off torch's flight recorder."""

from __future__ import annotations

import pickle
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from torch._C import _distributed_c10d

_LIBRARIES = sysconfig.get_path("purelib")
_STANDARD = sysconfig.get_path("stdlib")
#: Where calls stand that wait for the other ranks: torch's collectives, and TorchRec's own waits.
_COLLECTIVES = str(Path("torch", "distributed", "distributed_c10d.py"))
_EXCHANGES = str(Path("torchrec", "distributed", "comm_ops.py"))
#: Under it gradients are averaged by C++, which leaves no trace in Python.
_BACKWARD = "_engine_run_backward"


@dataclass(frozen=True)
class Whereabouts:
    """What a thread is doing.

    Attributes:
        place: the innermost function of ours or the user's, with file and line.
        exchange: the collective it is in; None where it waits for no rank, as far as Python shows.
    """

    place: str
    exchange: str | None


def whereabouts(frame: FrameType) -> Whereabouts:
    """What the thread of a frame, its innermost, is doing."""
    innermost = frame
    place = exchange = None
    current: FrameType | None = frame
    while current is not None:
        file, name = current.f_code.co_filename, current.f_code.co_name
        if file.endswith((_COLLECTIVES, _EXCHANGES)):
            exchange = name  # of several the outermost, which is what was called
        elif current is innermost and name == _BACKWARD:
            exchange = "the averaging of gradients in the backward"
        if place is None and not file.startswith((_LIBRARIES, _STANDARD, "<")):
            place = f"{name} ({_short(file)}:{current.f_lineno})"
        current = current.f_back
    code = innermost.f_code
    return Whereabouts(
        place or f"{code.co_name} ({_short(code.co_filename)}:{innermost.f_lineno})", exchange
    )


def _short(file: str) -> str:
    """A file by its last three parts."""
    return "/".join(Path(file).parts[-3:])


def flight_record() -> bytes | None:
    """What torch's flight recorder holds of this rank's last collectives; None without one.

    NCCL's, and from torch 2.13 on gloo's. A pickle of torch's.
    """
    for name in ("_dump_fr_trace", "_dump_nccl_trace"):  # the latter of CUDA builds alone
        if (dump := getattr(_distributed_c10d, name, None)) is not None:
            record: bytes = dump()
            return record
    return None


def open_collective() -> str | None:
    """The last collective that this rank has begun and not ended, as the flight recorder calls it.

    Of several groups that wait, that of the newest collective.
    """
    written = flight_record()
    if written is None:
        return None
    record = pickle.loads(written)  # this process has just written it
    waiting = {
        (int(group), status["last_enqueued_collective"])
        for group, status in record.get("pg_status", {}).items()
        if status["last_enqueued_collective"] > status["last_completed_collective"]
    }
    for entry in reversed(record.get("entries", [])):
        if (entry["pg_id"], entry["collective_seq_id"]) in waiting and not entry["is_p2p"]:
            sizes = " ".join(str(size) for size in entry["input_sizes"])
            group = f"{entry['collective_seq_id']} of group {entry['process_group'][1]}"
            return f"{entry['profiling_name']}{f' of {sizes}' if sizes else ''}, number {group}"
    return None
