"""Forked ranks whose checkpoint is damaged, or whose disk is full; see test_trouble.py."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from recsys.core.errors import RecsysError
from recsys.distributed.checkpoint.plugins import ShardedCheckpoints

sys.path.insert(0, str(Path(__file__).parent))
import forked

#: Bytes of a file that a rank with a full disk can write; its checkpoint is larger.
ROOM = 50_000


def content(rank: int) -> dict[str, Any]:
    """What a rank holds: a weight that all have, and a state of its own that only it writes."""
    return {
        "state_dict": {"layer.weight": torch.full((64, 64), 0.5)},
        "loops": {"loader": torch.full((40_000,), rank)},
        "global_step": 7,
    }


def fill_the_disk() -> None:
    """Let writes beyond ``ROOM`` fail, as ``RLIMIT_FSIZE`` has it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))


def with_plugin(rank: int, action: Any, said: Path, in_background: bool) -> None:
    """Call ``action(plugin, rank)`` and write down what it raises."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    plugin = ShardedCheckpoints(in_background, timedelta(seconds=60))
    try:
        action(plugin, rank)
        text = "nothing"
    except RecsysError as error:
        text = f"{type(error).__name__}: {error}"
    said.with_suffix(f".{rank}").write_text(text)
    dist.destroy_process_group()


def save(plugin: ShardedCheckpoints, rank: int, path: Path) -> None:
    """Write a whole one."""
    plugin.save_checkpoint(content(rank), path)


def save_full(plugin: ShardedCheckpoints, rank: int, path: Path, full: int) -> None:
    """Write one while the disk of a rank is full; in the background the next save hears of it."""
    if rank == full:
        fill_the_disk()
    plugin.save_checkpoint(content(rank), path)
    plugin.finish()


def save_in_the_way(plugin: ShardedCheckpoints, rank: int, path: Path) -> None:
    """Write one where the first rank cannot make the folder."""
    if rank == 0:
        path.touch()
    save(plugin, rank, path)
    plugin.finish()


def save_alone(plugin: ShardedCheckpoints, rank: int, path: Path) -> None:
    """Write a second one after the first rank has ended without a word."""
    save(plugin, rank, path.with_name("before.ckpt"))
    if rank == 0:
        time.sleep(1)  # the other may still be hearing that the first is whole
        os._exit(0)
    save(plugin, rank, path)


def load(plugin: ShardedCheckpoints, rank: int, path: Path) -> None:
    """Read it as a run does that goes on."""
    plugin.load_checkpoint(path)


def main(folder: Path) -> None:
    """Each trouble on two ranks."""
    whole = folder / "step-00000007.ckpt"
    cases: dict[str, tuple[Any, bool]] = {"whole": (partial(save, path=whole), False)}
    for full in range(2):
        write = partial(save_full, path=folder / f"full_{full}.ckpt", full=full)
        cases[f"full_{full}"] = (write, False)
        cases[f"full_{full}_background"] = (write, True)
    cases["alone"] = (partial(save_alone, path=folder / "alone.ckpt"), False)
    for name, in_background in (("taken", False), ("taken_background", True)):
        cases[name] = (partial(save_in_the_way, path=folder / f"{name}.ckpt"), in_background)
    for name, (action, in_background) in cases.items():
        run = partial(with_plugin, action=action, said=folder / name, in_background=in_background)
        forked.run(2, run)
    for shard in range(2):
        damaged = folder / f"damaged_{shard}.ckpt"
        shutil.copytree(whole, damaged)
        path = damaged / f"__{shard}_0.distcp"
        content_of = bytearray(path.read_bytes())
        content_of[len(content_of) // 2] ^= 1
        path.write_bytes(content_of)
        action = partial(load, path=damaged)
        said = folder / f"damaged_{shard}"
        forked.run(2, partial(with_plugin, action=action, said=said, in_background=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
