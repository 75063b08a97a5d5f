"""Randomness by step, rank and batch of an accumulated step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from recsys.distributed.randomness import seed_of_step
from recsys.runs.callbacks import StepSeed


def draw(
    seed: int = 3, step: int = 5, rank: int = 0, batch_idx: int = 5, batches: int = 1
) -> float:
    trainer: Any = SimpleNamespace(
        global_step=step, global_rank=rank, accumulate_grad_batches=batches
    )
    StepSeed(seed).on_train_batch_start(trainer, None, None, batch_idx)  # type: ignore[arg-type]
    return float(torch.rand(()))


def test_every_step_rank_and_batch_of_a_step_draws_something_else() -> None:
    assert len({draw(), draw(seed=4), draw(step=6), draw(rank=1), draw(rank=2)}) == 5
    of_a_step = [
        draw(rank=rank, batch_idx=batch, batches=2) for rank in (0, 1) for batch in (10, 11)
    ]
    assert len(set(of_a_step)) == 4
    assert draw() == of_a_step[0]


def test_the_first_rank_draws_what_one_process_draws() -> None:
    torch.manual_seed(seed_of_step(3, 5, 0))
    expected = float(torch.rand(()))
    assert draw() == expected


def test_ranks_do_not_meet_within_a_million_steps() -> None:
    seeds = [seed_of_step(0, 0, place) for place in range(-500, 500)]
    places = (torch.tensor(seeds) % 2**32).sort()[0]
    assert places.diff().min() > 10**6
    assert places[0] + 2**32 - places[-1] > 10**6


def test_the_largest_seed_of_the_last_of_many_ranks_is_taken() -> None:
    draw(seed=2**32 - 1, step=10**9, rank=1023)
