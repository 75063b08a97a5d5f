from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.small_service import Running, prepare


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of a small world."""
    return prepare(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="session")
def service(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two workers with an inspector."""
    running = Running(prepared, tmp_path_factory.mktemp("state") / "state", "inspector=true")
    yield running
    running.stop()
