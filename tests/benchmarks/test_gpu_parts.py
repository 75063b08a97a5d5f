"""The benchmarks of `scripts/gpu_day.sh`, on the CPU."""

from __future__ import annotations

import pytest

from recsys.cli import bench


def test_both_lookups_give_the_same_rows() -> None:
    lookup = bench._load("lookup")
    figures = lookup.run(lookup.Config(rows=50, bags=7, lookups=3, repeats=1, copied_mib=1))
    assert figures["difference"] < 1e-5
    assert [one["side"] for one in figures["figures"]] == ["FBGEMM", "embedding_bag"] * 2


def test_both_updates_leave_the_same_rows() -> None:
    lookup = bench._load("lookup")
    config = lookup.Config(rows=50, bags=7, lookups=3)
    sides = [lookup._fbgemm(config), lookup._torch(config)]
    for _, step in sides:
        step()
    ours, theirs = (forward().detach() for forward, _ in sides)
    assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-4)


def test_kernels_are_measured_against_products() -> None:
    kernels = bench._load("kernels")
    sizes = {"users": 2, "steps": 5, "catalogue": 30, "sequences": 2, "length": 9, "product": 16}
    figures = kernels.run(kernels.Config(**sizes, repeats=1))["figures"]
    assert [one["type"] for one in figures] == ["float32"] * 3
    assert all(one["rate"] > 0 and one["limit"] > 0 for one in figures)
