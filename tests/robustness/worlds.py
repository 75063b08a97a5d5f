"""The small world that writers are tried on, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.forks import Server, server
from tests.robustness.writers import make_whole_world, make_world


@pytest.fixture(scope="session")
def forks() -> Iterator[Server]:
    """What starts commands."""
    with server() as one:
        yield one


@pytest.fixture(scope="session")
def world(forks: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, a data set and an index; to be copied."""
    folder = tmp_path_factory.mktemp("robustness") / "world"
    make_world(forks, folder)
    return folder


@pytest.fixture
def whole_world(forks: Server, world: Path) -> Path:
    """Also a run, an artifact, a store and a checkpoint."""
    make_whole_world(forks, world)
    return world
