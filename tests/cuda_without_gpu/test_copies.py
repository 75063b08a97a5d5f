"""Copies of a checkpoint's tensors: page-locked and kept where they come from a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.cuda import _pin_memory_utils

from recsys.distributed.checkpoint.copies import Copies
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.plugins import OneFileCheckpoints
from recsys.distributed.checkpoint.save import items_of
from recsys.distributed.checkpoint.tensors import HeldTensor
from tests.cuda_without_gpu.pretended_gpu import PretendedGpu, Side


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA itself, in its order."""
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: calls.append("wait"))
    monkeypatch.setattr(
        _pin_memory_utils, "pin_memory", lambda place, size: calls.append(f"lock {size}")
    )
    monkeypatch.setattr(_pin_memory_utils, "unpin_memory", lambda place: None)
    return calls


def test_what_comes_from_a_gpu_is_copied_to_locked_memory_that_is_kept(called: list[str]) -> None:
    with PretendedGpu() as gpu:
        tables = torch.arange(12.0, device="cuda").view(6, 2)
        shards = (((0, 0), tables[:2]), ((4, 0), tables[4:]))
        weight = torch.ones(3, device="cuda")
        content = {"state_dict": {"tables": HeldTensor((6, 2), shards), "weight": weight}}
        copies = Copies()
        first = items_of(content, 0, copies)
        assert called == ["lock 48", "lock 12", "wait"]  # tables that lie together, once
        tables += 1
        table, dense = list(first.values())[:2]
        assert [begin for begin, _ in table.shards] == [(0, 0), (4, 0)]
        parts = [part for one in (table, dense) for _, part in one.shards]
        assert all(gpu.side(part) is not Side.DEVICE for part in parts)
        assert [part.flatten().tolist() for part in parts] == [
            [0, 1, 2, 3],
            [8, 9, 10, 11],
            [1] * 3,
        ]
        again = next(iter(items_of(content, 0, copies).values())).shards[1][1]
        assert again.data_ptr() == parts[1].data_ptr() and again.tolist() == [[9, 10], [11, 12]]
        assert called == ["lock 48", "lock 12", "wait", "wait"]


def test_one_file_of_a_training_on_a_gpu_is_written_beside_it(
    called: list[str], tmp_path: Path
) -> None:
    with PretendedGpu():
        weight = torch.ones(3, device="cuda")
        plugin = OneFileCheckpoints(in_background=True)
        content = {"state_dict": {"weight": weight}, "global_step": 1, "seen": [torch.zeros(2)]}
        write = plugin.prepare(content, tmp_path / "one.ckpt")
        weight += 1
        write()
        plugin.teardown()
    assert "wait" in called
    saved = open_checkpoint(tmp_path / "one.ckpt").whole()
    assert saved["state_dict"]["weight"].tolist() == [1, 1, 1]
    assert saved["seen"][0].tolist() == [0, 0] and saved["global_step"] == 1


def test_on_a_cpu_every_checkpoint_has_new_memory() -> None:
    weight, copies = torch.ones(3), Copies()
    (first,) = copies.of([weight])
    weight += 1
    (second,) = copies.of([weight])
    assert first.tolist() == [1, 1, 1] and second.tolist() == [2, 2, 2]
