"""The benchmark of Shampoo: its arithmetic by hand, and a tiny run of two ranks."""

from __future__ import annotations

import pytest
import torch

from recsys.cli import bench

shampoo = bench._load("shampoo")
from benchmarks import _shampoo_side as side  # noqa: E402  (bench makes it importable)


def test_the_bound_by_hand() -> None:
    """4 · m · n · (m + n) operations; small dimensions are merged first."""
    layer = torch.nn.Linear(4, 6, bias=False)
    assert side.shampoo_arithmetic([layer.weight]) == 4 * 24 * 24  # merged: one block of 24
    wide = torch.nn.Linear(1000, 6, bias=False)
    assert side.shampoo_arithmetic([wide.weight]) == 4 * 6000 * 1006


def test_the_resnet_has_as_many_weights_as_the_paper_s() -> None:
    """25,557,032, as torchvision's."""
    model = side.resnet50({"resnet50_pixels": 32, "resnet50_images": 1}, [])
    assert sum(one.numel() for one in model.parameters) == 25_557_032


def test_steps_between_roots() -> None:
    assert shampoo._step_seconds(1.0, 11.0, 10) == pytest.approx(2.0)


def test_the_sizes_are_those_of_the_file() -> None:
    assert shampoo._fixed_sizes() == shampoo.Sizes()


@pytest.mark.slow
def test_two_ranks_share_the_state(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = shampoo.Sizes(transformer_sequences=2, transformer_steps=3, transformer_width=32)
    config = shampoo.Config(["transformer"], peers=False, periods=1, sizes=sizes)
    rows = {(row["optimizer"], row["ranks"]): row for row in shampoo.run(config)["rows"]}
    assert rows["adamw", 1]["state_mib"] == pytest.approx(rows["adamw", 2]["state_mib"])
    share = rows["shampoo", 2]["state_mib"] / rows["shampoo", 1]["state_mib"]
    assert 0.45 < share < 0.65
    assert "transformer, ranks 2: aim" in capsys.readouterr().out
