"""What tests of several systems share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.systems.evaluated import evaluated_runs


@pytest.fixture(scope="session")
def runs(
    data_overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run with timelines and one without, evaluated against each other."""
    return evaluated_runs(tmp_path_factory.mktemp("runs"), data_overrides)
