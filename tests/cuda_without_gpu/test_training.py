"""Every system on a pretended GPU: forward, backward, optimiser and validation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from recsys.nn.kernels import has_triton
from recsys.systems.registry import SYSTEMS
from tests.cuda_without_gpu.systems import FOLLOWED, write_log
from tests.cuda_without_gpu.training import Trained, train


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_log(folder)
    return folder


@pytest.fixture(scope="module", params=FOLLOWED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(name: str, log: Path) -> Trained:
    if not has_triton():
        pytest.skip("Triton is not installed: with a GPU it is, and the losses take its kernels")
    return train(FOLLOWED[name], log)


def test_every_system_is_followed() -> None:
    assert {followed.system for followed in FOLLOWED.values()} == set(SYSTEMS)


def test_nothing_is_left_on_the_host_and_no_operation_has_tensors_of_both(trained: Trained) -> None:
    assert not trained.left_on_host
    assert not trained.mixed
    assert math.isfinite(trained.metrics["train/loss"])
    assert math.isfinite(trained.metrics[trained.monitored])


def test_the_host_waits_no_more_often_than_it_did(name: str, trained: Trained) -> None:
    """The first step makes the optimiser's state and is left out."""
    for waits in trained.waits[1:]:
        assert waits.total() <= FOLLOWED[name].waits, waits.most_common()
