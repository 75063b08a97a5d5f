"""The benchmark of a step: what it counts, how its figures follow, and a run of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import _step_side
from recsys.cli import bench
from recsys.core.errors import ConfigError

step = bench._load("step")


def _round(seconds: list[float], cpu: list[float], losses: list[float]) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "parts": [[one / 4] * 4 for one in seconds],
        "rows": [10] * len(seconds),
        "losses": losses,
        "flop": 40.0,
        "table_bytes": 80.0,
        "peak_flop_per_second": 100.0,
        "peak_bytes_per_second": 200.0,
        "operations": 7,
        "waits": 2,
        "threads": 1,
        "gib": 0.5,
    }


def test_figures_by_hand() -> None:
    rounds = [_round([2.0, 4.0], [1.0, 1.0], [1.0, 2.0]), _round([8.0], [2.0], [4.0])]
    figures = step._figures(rounds, "cpu")
    assert figures["step_seconds"] == {"median": 4.0, "low": 3.0, "high": 6.0}
    assert figures["rows_per_second"]["median"] == 2.5
    assert figures["rows_per_cpu_second"]["median"] == 10.0
    assert figures["forward_seconds"]["median"] == 1.0
    assert figures["flop_per_second"] == 40.0  # of a core
    assert figures["table_bytes_per_second"] == 80.0
    assert step._figures(rounds, "cuda")["flop_per_second"] == 10.0


def test_losses_of_the_same_steps_are_compared() -> None:
    ours = [_round([1.0, 1.0], [1.0, 1.0], [1.0, 2.0])]
    theirs = [_round([1.0, 1.0], [1.0, 1.0], [1.0, 2.5])]
    assert step._largest_difference(ours, ours) == 0
    assert step._largest_difference(ours, theirs) == pytest.approx(0.2)


def test_operations_and_waits_are_counted_forward_and_backward() -> None:
    weight = torch.ones(3, 4, requires_grad=True)
    with _step_side._Operations() as counted:
        product = torch.mm(torch.ones(2, 3), weight)  # ones, mm
        product.t()  # a view
    assert (counted.operations, counted.waits) == (2, 0)
    with _step_side._Operations() as counted:
        product.sum().backward()
        assert counted.operations >= 2  # sum, and mm of the gradient
        assert counted.waits == 0
        float(product.detach().sum())
        product.detach()[torch.tensor([True, False])]
        torch.repeat_interleave(torch.arange(2), torch.tensor([1, 2]))
    assert counted.waits == 3


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (step.Config(system="dv356"), "system=dv356 is not known"),
        (step.Config(device="gpu"), "choose cpu or cuda"),
    ],
)
def test_what_there_is_not_is_a_sentence(config: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        step.run(config)


def test_a_revision_that_there_is_not_is_a_sentence(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="against=no-such-revision: git cannot read it"):
        step._source_of("no-such-revision", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("system", step.SYSTEMS)
def test_every_system_is_measured(system: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = [*step._SIMULATION, "simulator.users=150"]
    result = step.run(
        step.Config(system=system, steps=2, warm_up=1, rounds=1, threads=1, simulation=small)
    )
    figures = result["here"]
    assert figures["rows_per_step"] > 0 and figures["flop_per_step"] > 0
    assert figures["table_bytes_per_step"] > 0
    assert "MFU" in capsys.readouterr().out
