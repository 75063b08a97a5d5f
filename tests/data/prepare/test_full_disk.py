"""A worker whose disk is full: a sentence, and nothing half-committed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from recsys.core.engines import EngineConfig
from recsys.core.errors import RecsysError
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.check import open_checked
from tests.data.prepare.engines import SMALL, Divided, bytes_of
from tests.data.prepare.test_prepare import HOUR, START, make_log

#: Bytes that are left on the disk where a command is to fail.
ROOM = 48 << 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes, of which a file takes what is asked for."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def _fill(disk: Path) -> Path:
    """Leave ``ROOM`` bytes."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - ROOM))
    return filler


@pytest.mark.parametrize("by", ["pieces", "ray"])
def test_a_full_disk_of_a_worker_leaves_what_was_there(
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    by: str,
) -> None:
    engine = EngineConfig()
    if by == "ray":
        request.getfixturevalue("ray")
        engine = SMALL
    else:  # what another process would be told and report

        def divided(*_: object) -> AbstractContextManager[Divided]:
            return nullcontext(Divided(100))

        for command in ("prepare", "append"):
            monkeypatch.setattr(f"recsys.data.prepare.{command}.open_engine", divided)
    log = tmp_path / "log"
    log.mkdir()
    make_log(rows=4_000).write_parquet(log / "0.parquet", row_group_size=100)
    out = small_disk / "out"
    config = PrepareConfig(path=str(log), out=str(out), partitions=3, engine=engine)
    filler = _fill(small_disk)
    with pytest.raises(RecsysError, match=r"No space left on device .* Make room"):
        prepare(config)
    assert [one.name for one in small_disk.iterdir() if one.name[0] != "."] == ["filler"]
    assert not any(one.is_dir() for one in small_disk.iterdir())
    filler.unlink()
    made = prepare(config)
    before = bytes_of(out)
    day = make_log(rows=4_000, seed=1, start=START + 61 * HOUR, users=50)
    day.write_parquet(log / "1.parquet", row_group_size=100)
    filler = _fill(small_disk)
    appended = AppendConfig(path=str(log), out=str(out), partitions=3, engine=engine)
    with pytest.raises(RecsysError, match=r"No space left on device .* Make room"):
        append(appended)
    assert bytes_of(out) == before
    assert open_checked(out).manifest == made
    filler.unlink()
    assert append(appended).counts["events"] > 0
