"""Candidates as targets of HSTU: each is the last step of its own sequence."""

from __future__ import annotations

import pytest
import torch

from recsys.nn.sequence.hstu import HSTUEncoder
from recsys.nn.sequence.targets import RowBlocks, TargetHSTU

WIDTH, HEADS, BLOCKS, LONGEST = 8, 2, 2, 6
LENGTHS = [4, 0, 6]
ROWS = [3, 2, 20]


@pytest.fixture(params=[128, 4], ids=["all events at a time", "four events at a time"])
def encoder(request: pytest.FixtureRequest) -> TargetHSTU:
    torch.manual_seed(0)
    encoder = TargetHSTU(WIDTH, BLOCKS, HEADS, 0.0, LONGEST).eval()
    encoder.queries_at_a_time = request.param
    return encoder


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    history = torch.randn(3, LONGEST, WIDTH)
    lengths = torch.tensor(LENGTHS)
    place = torch.arange(LONGEST)
    history[place < LONGEST - lengths.unsqueeze(1)] = 0
    time = torch.randint(0, 10**8, (3, LONGEST)).sort(dim=1).values
    return {
        "history": history,
        "lengths": lengths,
        "history_time": time,
        "target": torch.randn(sum(ROWS), WIDTH),
        "target_time": torch.full((3,), 2 * 10**8),
    }


def blocks_of(rows: list[int]) -> RowBlocks:
    return RowBlocks(torch.tensor(rows), sum(rows))


def test_a_target_is_the_last_step_of_a_sequence_of_its_own(encoder, inputs) -> None:
    found = encoder(**inputs, rows=blocks_of(ROWS))
    causal = HSTUEncoder(WIDTH, BLOCKS, HEADS, 0.0, LONGEST + 1, has_times=True).eval()
    causal.load_state_dict(encoder.state_dict())
    row = 0
    for request, number in enumerate(ROWS):
        steps = LENGTHS[request]
        history = inputs["history"][request, LONGEST - steps :]
        times = inputs["history_time"][request, LONGEST - steps :]
        for _ in range(number):
            tokens = torch.cat([history, inputs["target"][row : row + 1]])
            moments = torch.cat([times, inputs["target_time"][request : request + 1]])
            alone = causal(tokens, torch.tensor([steps + 1]), moments)[-1]
            torch.testing.assert_close(found[row], alone, rtol=1e-5, atol=1e-6)
            row += 1


def test_a_target_has_the_same_bits_whatever_is_beside_it(encoder, inputs) -> None:
    together = encoder(**inputs, rows=blocks_of(ROWS))
    row = 0
    for request, number in enumerate(ROWS):
        for _ in range(number):
            # as many rows and requests as before, all of them others
            others = torch.randn(sum(ROWS), WIDTH)
            others[0] = inputs["target"][row]
            asked = {
                name: tensor[[request] * 3] for name, tensor in inputs.items() if name != "target"
            }
            alone = encoder(**asked, target=others, rows=blocks_of([1, 23, 1]))
            assert torch.equal(alone[0], together[row])
            row += 1


def test_histories_are_encoded_once_and_gradients_reach_them(encoder, inputs) -> None:
    inputs["history"].requires_grad_()
    rows = blocks_of(ROWS)
    history = [inputs[name] for name in ("history", "lengths", "history_time")]
    remembered = encoder.encode(*history)
    after = encoder.after(remembered, *history[1:], inputs["target"], inputs["target_time"], rows)
    assert torch.equal(after, encoder(**inputs, rows=rows))
    after[:3].sum().backward()
    gradient = inputs["history"].grad
    assert gradient[0, LONGEST - LENGTHS[0] :].abs().sum() > 0
    assert gradient[0, : LONGEST - LENGTHS[0]].abs().sum() == 0
    assert gradient[1:].abs().sum() == 0  # other requests


def test_blocks_of_rows_belong_to_one_request_each() -> None:
    rows = blocks_of([3, 0, 20])
    assert rows.request.tolist() == [0, 2, 2, 2]  # the last is empty
    values = torch.arange(23.0).unsqueeze(1)
    filled = rows.fill(values)
    assert filled.shape == (4, 16, 1)
    assert filled[0, :4, 0].tolist() == [0, 1, 2, 0]
    assert torch.equal(rows.rows(filled), values)
