from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.small_service import prepare


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of a small world."""
    return prepare(tmp_path_factory.mktemp("service"))
