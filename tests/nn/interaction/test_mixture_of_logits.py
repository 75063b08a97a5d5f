"""The mixture of logits by its formula."""

from __future__ import annotations

import torch

from recsys.nn.interaction.mixture_of_logits import MixtureOfLogits, MixtureOfLogitsConfig

CONFIG = MixtureOfLogitsConfig(
    user_components=2, item_components=3, width=4, gate_hidden_size=5, temperature=0.1
)


def test_similarity_by_its_formula() -> None:
    torch.manual_seed(0)
    mixture = MixtureOfLogits(6, 7, CONFIG)
    user, item = torch.randn(6), torch.randn(7)
    f = (mixture.of_user.weight @ user + mixture.of_user.bias).view(2, 4)
    g = (mixture.of_item.weight @ item + mixture.of_item.bias).view(3, 4)
    cosines = torch.stack(
        [f[q] @ g[x] / (f[q].norm() * g[x].norm()) for q in range(2) for x in range(3)]
    )
    gate = mixture.user_gate(user) + mixture.item_gate(item) + mixture.pair_gate(cosines)
    expected = (gate.exp() / gate.exp().sum() * cosines).sum() / 0.1
    found = mixture(user.unsqueeze(0), item.unsqueeze(0))
    torch.testing.assert_close(found, expected.unsqueeze(0))


def test_all_pairs_are_the_pairs() -> None:
    torch.manual_seed(0)
    mixture = MixtureOfLogits(6, 7, CONFIG)
    users, items = torch.randn(3, 6), torch.randn(4, 7)
    pairs = mixture(users.repeat_interleave(4, 0), items.repeat(3, 1)).view(3, 4)
    torch.testing.assert_close(mixture.of_all(users, items), pairs)
    assert (pairs.abs() <= 1 / 0.1 + 1e-4).all()
