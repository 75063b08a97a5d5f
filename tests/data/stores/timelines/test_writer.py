"""The writer: crashes, deletion, bad frames, two writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.contract.schema import ACTION_TYPES, TimelineKind
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineStore, TimelineWriter, writer
from recsys.data.stores.timelines.layout import (
    CURRENT,
    StoreManifest,
    _order,
    partition_of,
    timeline_marks,
)

CLICK = ACTION_TYPES.index("click")


@pytest.mark.parametrize("span", [1, 50, 2**40])
def test_events_are_ordered_by_user_and_time_stably(span: int) -> None:
    """Also where user and time together do not fit into one number."""
    generator = np.random.default_rng(0)
    users = np.append(generator.integers(0, 4, 500), 2**31 - 1).astype(np.int32)
    times = generator.integers(-span, span, 501)
    np.testing.assert_array_equal(_order(users, times), np.lexsort((times, users)))
    assert len(_order(users[:0], times[:0])) == 0


def clicks(users: list[int], times: list[int]) -> pl.DataFrame:
    filled = {name: [1] * len(users) for name in EVENT_SCHEMA}
    return pl.DataFrame(
        {**filled, "user": users, "timestamp": times, "action_type": [CLICK] * len(users)},
        schema=EVENT_SCHEMA,
    )


def timestamps(path: Path, user: int) -> list[int]:
    return (
        TimelineStore.open(path).history(user, 1 << 60, TimelineKind.EXPLICIT)["timestamp"].tolist()
    )


def names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


@pytest.mark.parametrize("step", ["write_block", "sync_folder", "save"])
@pytest.mark.parametrize("change", ["append", "delete_users", "compact"])
def test_crash_before_the_rename_leaves_the_old_store(tmp_path, monkeypatch, step, change):
    """Each step fails in turn; the next writer removes what was left behind."""
    with TimelineWriter(tmp_path, 1) as healthy:
        healthy.append([clicks([1, 2], [10, 20])])
        healthy.append([clicks([1, 2], [11, 21])])
    before = names(tmp_path)

    def crash(*arguments):
        raise KeyboardInterrupt

    crashing = TimelineWriter(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StoreManifest if step == "save" else writer, step, crash)
        with pytest.raises(KeyboardInterrupt):
            {
                "append": lambda: crashing.append([clicks([1], [12])]),
                "delete_users": lambda: crashing.delete_users([1]),
                "compact": crashing.compact,
            }[change]()
    crashing.close()
    assert timestamps(tmp_path, 1) == [10, 11]
    assert timestamps(tmp_path, 2) == [20, 21]
    TimelineWriter(tmp_path).close()
    assert names(tmp_path) == before


WRITE_FOR_EVER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_writer import clicks
from recsys.data.stores.timelines import TimelineWriter
writer = TimelineWriter(sys.argv[1], 4)
writer.append([clicks(list(range(8)), [0] * 8)])
print("ready", flush=True)
moment = 1
while True:
    for _ in range(3):
        writer.append([clicks(list(range(8)), [moment] * 8)])
        moment += 1
    writer.compact()
    writer.delete_users([7])
"""


def test_killed_writer_leaves_a_whole_store(tmp_path: Path):
    """SIGKILL at many moments: every user has the same events, and the next writer goes on."""
    path = tmp_path / "store"
    arguments = [sys.executable, "-c", WRITE_FOR_EVER, str(path), str(Path(__file__).parent)]
    seen = 0
    for delay in (0.003, 0.011, 0.031, 0.073):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"  # its first segment is committed
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert all(mark.problem(file) is None for file, mark in timeline_marks(path).items())
        histories = [timestamps(path, user) for user in range(7)]
        assert all(history == histories[0] for history in histories)
        assert len(histories[0]) > seen
        seen = len(histories[0])
        with TimelineWriter(path):
            pass
        assert names(path) == {CURRENT, "LOCK", *StoreManifest.load(path).files}


def test_append_writes_no_old_file_again(tmp_path: Path):
    with TimelineWriter(tmp_path, 2) as store_writer:
        store_writer.append([clicks([1, 2, 3], [10, 20, 30])])
        old = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.block")}
        store_writer.append([clicks([1, 2, 3], [11, 21, 31])])
        for name, changed in old.items():
            assert (tmp_path / name).stat().st_mtime_ns == changed
        assert store_writer.append([]) == 0
    assert TimelineStore.open(tmp_path).num_segments == 2


def test_deleted_user_is_on_no_file(tmp_path: Path):
    """The item index of the deleted user's event is a byte pattern that nothing else has."""
    secret = 0x5EC2E7
    pattern = secret.to_bytes(4, "little")
    with TimelineWriter(tmp_path, 2) as store_writer:
        mine = clicks([1], [10]).with_columns(pl.lit(secret, pl.Int32).alias("item"))
        store_writer.append([pl.concat([mine, clicks([2, 3, 4], [20, 30, 40])])])
        assert any(pattern in file.read_bytes() for file in tmp_path.glob("*.block"))
        untouched = {
            block.file
            for partition, block in enumerate(StoreManifest.load(tmp_path).segments[0].blocks)
            if block and partition != partition_of(mine["user"].to_numpy(), 2)[0]
        }
        assert store_writer.delete_users([1]) == 1
    assert not any(pattern in file.read_bytes() for file in tmp_path.glob("*"))
    assert timestamps(tmp_path, 1) == []
    assert [timestamps(tmp_path, user) for user in (2, 3, 4)] == [[20], [30], [40]]
    assert untouched <= names(tmp_path)


def test_only_one_writer_at_a_time(tmp_path: Path):
    with TimelineWriter(tmp_path), pytest.raises(DataError, match="another process"):
        TimelineWriter(tmp_path)
    TimelineWriter(tmp_path).close()


def test_partitions_of_an_existing_store_stay(tmp_path: Path):
    with TimelineWriter(tmp_path, 3) as store_writer:
        store_writer.append([clicks([1, 2, 3], [10, 20, 30])])
    with TimelineWriter(tmp_path, 5) as store_writer:
        store_writer.append([clicks([1, 2, 3], [11, 21, 31])])
    assert [timestamps(tmp_path, user) for user in (1, 2, 3)] == [[10, 11], [20, 21], [30, 31]]


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (clicks([1], [1]).drop("item", "surface"), r"lack the column\(s\) item, surface"),
        (clicks([1], [1]).with_columns(pl.lit(None, pl.Int32).alias("topic")), "topic .* null"),
        (clicks([1], [1]).with_columns(pl.lit(300).alias("surface")), "do not fit their types"),
        (clicks([-1], [1]), "negative"),
    ],
)
def test_bad_frame_is_one_sentence_and_changes_nothing(tmp_path: Path, frame, sentence):
    with TimelineWriter(tmp_path) as store_writer:
        store_writer.append([clicks([1], [10])])
        before = names(tmp_path)
        with pytest.raises(DataError, match=sentence):
            store_writer.append([clicks([1], [11]), frame])
        assert names(tmp_path) == before
    assert timestamps(tmp_path, 1) == [10]
