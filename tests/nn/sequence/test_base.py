"""The passage between jagged and padded tensors, against loops over users."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recsys.nn.sequence.base import (
    SequenceEncoder,
    longest,
    newest_steps,
    padded_slots,
    step_number,
    to_jagged,
    to_padded,
    user_of_step,
)


class RoundTrip(SequenceEncoder):
    """Pads and cuts again."""

    def forward(self, tokens: Tensor, lengths: Tensor, timestamps: Tensor | None = None) -> Tensor:
        length = longest(lengths)
        slots = padded_slots(lengths, tokens.shape[0], length)
        return to_jagged(to_padded(tokens, slots, lengths.shape[0], length), slots)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6))
def test_padding_places_every_step_and_comes_back(lengths: list[int]) -> None:
    tokens = torch.arange(2.0 * sum(lengths)).reshape(-1, 2) + 1
    sizes = torch.tensor(lengths, dtype=torch.int64)
    length = longest(sizes)
    assert length == max(lengths, default=0)
    slots = padded_slots(sizes, len(tokens), length)
    padded = to_padded(tokens, slots, len(lengths), length)
    expected = torch.zeros(len(lengths), length, 2)
    begin = 0
    for user, size in enumerate(lengths):
        expected[user, :size] = tokens[begin : begin + size]
        begin += size
    assert torch.equal(padded, expected)
    assert torch.equal(to_jagged(padded, slots), tokens)
    owners = [user for user, size in enumerate(lengths) for _ in range(size)]
    assert user_of_step(sizes, len(tokens)).tolist() == owners
    assert step_number(sizes, len(tokens)).tolist() == [s for n in lengths for s in range(n)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6), st.integers(1, 4))
def test_newest_steps_of_every_user(lengths: list[int], max_length: int) -> None:
    sizes = torch.tensor(lengths, dtype=torch.int64)
    place = torch.arange(sum(lengths)).split(lengths)
    newest = [step for steps in place for step in steps.tolist()[-max_length:]]
    for host_lengths in (None, sizes):
        steps, kept = newest_steps(sizes, max_length, host_lengths)
        assert steps.tolist() == newest
        assert kept.tolist() == [min(size, max_length) for size in lengths]


def test_gradients_pass_through_padding_unchanged() -> None:
    tokens = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 0, 1])
    torch.autograd.gradcheck(lambda flat: RoundTrip()(flat, lengths), [tokens])


def test_helpers_script() -> None:
    module: nn.Module = torch.jit.script(RoundTrip())
    for lengths in ([2, 0, 3], [0, 0], []):
        sizes = torch.tensor(lengths, dtype=torch.int64)
        tokens = torch.randn(sum(lengths), 4)
        assert torch.equal(module(tokens, sizes), tokens)
        assert torch.equal(module(tokens, sizes, torch.arange(sum(lengths))), tokens)
