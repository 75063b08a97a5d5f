"""A tower that is exported once for the tests that publish with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import ArtifactError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.embeddings.publish import publish
from recsys.systems.base import ExportConfig
from recsys.systems.dv365.export import export_run
from tests.embeddings.publications import BATCH_USERS, config
from tests.systems.dv365.runs import events, prepared_dataset, untrained_run
from tests.systems.dv365.towers import NOW


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set ``data`` and the run ``run`` with its artifact."""
    folder = tmp_path_factory.mktemp("published")
    # Users differ in how long ago their events were; some have none in the last 20 days.
    log = pl.concat(
        [
            events(1_500, NOW - 60 * DAY, NOW, seed=1),
            events(150, NOW - 10 * DAY, NOW, seed=2, users=20),
        ]
    ).filter((pl.col("user") < 45) | (pl.col("timestamp") < NOW - 22 * DAY))
    run = untrained_run(folder / "run", prepared_dataset(folder / "data", log))
    export_run(run, ExportConfig(measure=False))
    _find_batch_users(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy whose timelines a test may change."""
    shutil.copytree(exported, tmp_path / "copy")
    return tmp_path / "copy"


def _find_batch_users(exported: Path) -> None:
    """Publish one user at a time where his embedding depends on his place in a batch.

    That hangs on the processor and on the number of threads: in MKL's products for AVX2 the bits of
    a row do (unless MKL_CBWR=AUTO,STRICT). There ``publish`` refuses to do it otherwise.
    """
    BATCH_USERS[:] = [16]
    try:
        publish(config(exported, "tried"))
    except ArtifactError as error:
        assert "publish with batch_users=1" in str(error)
        BATCH_USERS[:] = [1]
    shutil.rmtree(exported / "tried")
