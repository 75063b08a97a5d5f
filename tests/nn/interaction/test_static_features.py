"""Static features: which columns count, what is looked up, unknown values."""

from __future__ import annotations

import torch

from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide
from recsys.nn.interaction.static_features import StaticFeatures, used_columns


def categorical(name: str, cardinality: int) -> Feature:
    return Feature(name, FeatureSide.USER, FeatureKind.CATEGORICAL, cardinality)


FEATURES = (categorical("user_id", 100), categorical("language", 3), categorical("country", 4))


def test_values_are_looked_up_in_their_own_rows_and_ids_are_not_looked_at() -> None:
    torch.manual_seed(0)
    module = StaticFeatures(FEATURES, 2, width=5, table_width=4)
    dense = torch.randn(2, 2)
    encoded = module(torch.tensor([[7, 1, 3], [8, 2, 0]]), dense)
    rows = module.table.weight
    expected = module.mlp(
        torch.stack(
            [torch.cat([rows[1], rows[3 + 3], dense[0]]), torch.cat([rows[2], rows[3], dense[1]])]
        )
    )
    torch.testing.assert_close(encoded, expected)
    assert torch.equal(module(torch.tensor([[0, 1, 3], [99, 2, 0]]), dense), encoded)


def test_a_value_the_table_does_not_have_is_unknown() -> None:
    module = StaticFeatures(FEATURES, 0, width=5)
    dense = torch.empty(1, 0)
    unknown = module(torch.tensor([[0, 0, 2]]), dense)
    assert torch.equal(module(torch.tensor([[0, 3, 2]]), dense), unknown)
    assert not torch.equal(module(torch.tensor([[0, 2, 2]]), dense), unknown)


def test_ids_are_no_static_features() -> None:
    assert used_columns(FEATURES) == [1, 2]
    assert used_columns(FEATURES[:1]) == []


def test_it_scripts() -> None:
    module = StaticFeatures(FEATURES, 2, width=5)
    arguments = (torch.tensor([[7, 1, 3], [8, 2, 9]]), torch.randn(2, 2))
    torch.testing.assert_close(torch.jit.script(module)(*arguments), module(*arguments))
