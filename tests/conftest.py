"""Fixtures every room's tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes hangs on the machine and on what else it does.
settings.register_profile(
    "any machine",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

#: Fixtures that several folders of tests use.
pytest_plugins = [
    "tests.object_store",
    "tests.small_runs",
    "tests.data.ray_cluster",
    "tests.data.sequence_data",
    "tests.robustness.worlds",
    "tests.systems.own_log",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where torch sees none."""
    gpu_tests = [item for item in items if "gpu" in item.keywords]
    if not gpu_tests:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="torch sees no NVIDIA GPU on this machine"))


@pytest.fixture(scope="session", autouse=True)
def trusted_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of artifacts that tests have exported; the user's own is left alone."""
    path = tmp_path_factory.mktemp("settings") / "trusted_artifacts"
    os.environ["RECSYS_TRUSTED_ARTIFACTS"] = str(path)
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the owners' files of the real data sets (docs/data.md says which)."""
    configured = os.environ.get("RECSYS_DATA_DIR")
    if not configured:
        pytest.skip("RECSYS_DATA_DIR is not set: it names the folder with the real data sets")
    path = Path(configured)
    if not path.is_dir():
        pytest.skip(f"RECSYS_DATA_DIR={configured} is not a folder")
    return path
