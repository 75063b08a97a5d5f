"""Every source that ships is prepared to the same bytes by one process and by Ray."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.engines import Engine
from recsys.data.prepare.prepare import PrepareConfig
from tests.data.prepare.engines import by_both
from tests.data.sources.test_ebnerd import folder as ebnerd  # noqa: F401 - fixtures
from tests.data.sources.test_globo import folder as globo  # noqa: F401
from tests.data.sources.test_kuairand import folder as kuairand  # noqa: F401
from tests.data.sources.test_ledger import played  # noqa: F401
from tests.data.sources.test_movielens import folder as movielens  # noqa: F401


@pytest.mark.parametrize("source", ["ebnerd", "globo", "kuairand", "movielens"])
def test_owners_files_are_prepared_to_the_same_bytes(
    ray: Engine, source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(source)
    by_both(PrepareConfig(source=source, path=str(path), out=str(tmp_path / "out"), partitions=2))


def test_a_simulation_and_a_ledger_are_prepared_to_the_same_bytes(
    ray: Engine,
    played: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    out = str(tmp_path / "out")
    simulated = PrepareConfig(source="simulated", path=str(played / "log"), out=out, partitions=3)
    by_both(simulated)
    options = {"simulation": {"path": str(played / "log")}}
    ledger = str(played / "ledger")
    config = PrepareConfig(source="ledger", path=ledger, out=out, partitions=3, options=options)
    by_both(replace(config, out=str(tmp_path / "of_ledger" / "out")))


def test_what_workers_import_does_without_torch() -> None:
    rooms = (
        "recsys.core.ray_engine, recsys.data.prepare.prepare, recsys.data.prepare.request_pieces"
    )
    program = f"import sys, {rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
