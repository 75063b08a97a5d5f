"""One Ray for all tests that ask for it: two workers, and little memory for what is on its way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys.core.engines import Engine
from recsys.core.open_engine import open_engine
from tests.data.prepare.engines import SMALL


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Ray with two workers, which every preparation with engine=ray takes while it is there."""
    pytest.importorskip("ray")
    with open_engine(SMALL, tmp_path_factory.mktemp("ray")) as engine:
        yield engine
