"""Each process uses the GPU that is its own."""

from __future__ import annotations

import lightning
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.distributed.gpus import BoundGpus, gpu_of, refuse_shared_gpus
from recsys.distributed.strategy import TorchRecStrategy


def test_the_only_gpu_that_is_seen_is_the_process_s_own() -> None:
    assert [gpu_of(rank, visible=8) for rank in range(3)] == [0, 1, 2]
    assert [gpu_of(rank, visible=1) for rank in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("visible", "used"), [(1, [0, 0, 0, 0]), (4, [0, 1, 2, 3])])
def test_a_trainer_of_four_processes_takes_them_as_they_are_seen(
    visible: int, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU the trainer can be made, not more: Lightning asks the driver for the number."""
    places = ("recsys.distributed.gpus", "lightning.fabric.accelerators.cuda")
    for place in (*places, "lightning.pytorch.accelerators.cuda"):
        monkeypatch.setattr(f"{place}.num_cuda_devices", lambda: visible)
    trainer = lightning.Trainer(
        accelerator=BoundGpus(),
        devices=4,
        strategy=TorchRecStrategy(),
        logger=False,
        enable_checkpointing=False,
    )
    assert isinstance(trainer.strategy, TorchRecStrategy)
    assert trainer.strategy.parallel_devices == [torch.device("cuda", number) for number in used]


def test_ranks_that_share_a_gpu_are_named() -> None:
    refuse_shared_gpus([("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-1")])
    with pytest.raises(ConfigError, match=r"Ranks 1 and 2 have one GPU \(GPU-2 of a\)"):
        refuse_shared_gpus([("a", "GPU-1"), ("a", "GPU-2"), ("a", "GPU-2")])
