"""Live events: what is taken in, what outlives its writer, whose folder it is."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest

from recsys.core.errors import DataError
from recsys.core.lmdb_folder import DATA_FILE
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.live import LiveDataset, LiveEvents
from tests.data.stores.live.small import (
    ACTIONS,
    END,
    ITEMS,
    USERS,
    counters_of,
    grown,
    make,
    reported,
)

EVERY_ACTION = [(1, 1, 0, action, None, 0) for action in ACTIONS]
EXPLICIT, IMPLICIT = TimelineKind.EXPLICIT, TimelineKind.IMPLICIT
LATE = END + 100 * HOUR


def event(user: int, item: int, quarter: int, action: str = "liked") -> tuple:
    return user, item, quarter, action, None, 0


def items_of(dataset: LiveDataset, user: int, kind: TimelineKind = EXPLICIT) -> list[int]:
    return dataset.timelines.history(user, LATE, kind)["item"].tolist()


@pytest.fixture
def dataset(tmp_path):
    return make(tmp_path / "data", [*EVERY_ACTION, event(2, 5, 3)])


def test_what_cannot_be_used_is_set_aside_by_reason(dataset):
    live = LiveEvents(dataset)
    rows = [event(3, 4, 2), event(3, 5, 1), event(3, 4, 2), *[event(3, 6, 3)] * 9]
    events = reported(rows)
    events["timestamp"][3:6] = [END, 5, 10**13]
    events["user"], events["item"] = events["user"].astype(int), events["item"].astype(int)
    events["user"][6], events["item"][7] = -1, 2**31
    events["action_type"][8] = 99
    events["dwell_time"][9:12] = [-1, np.inf, np.nan]
    found = live.append(events)
    assert found.taken == 3
    assert found.set_aside == {
        "not after the last event of the data set": 2,
        "timestamp is out of range": 1,
        "user is no index": 1,
        "item is no index": 1,
        "action_type is unknown": 1,
        "dwell_time is negative": 1,
        "dwell_time is infinite": 1,
        "event: duplicated row": 1,
    }
    again = live.append(events)
    assert again.taken == 0
    assert again.set_aside["event: duplicated row"] == 4
    assert live.append({name: column[:0] for name, column in events.items()}).taken == 0
    # they came out of order
    history = LiveDataset(dataset.path, dataset.manifest, live=live).timelines
    assert history.history(3, LATE, EXPLICIT)["item"].tolist() == [5, 4, 6]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"item": None}, "events lack the column item; they have user, "),
        ({"likes": [1]}, "events have a column likes; the columns of events are user, "),
        ({"item": [1, 2]}, "column item of events has 2 values, user has 1"),
        ({"item": ["a"]}, "column item of events is <U1 of shape .*; expected whole numbers"),
        ({"timestamp": [1.5]}, "column timestamp of events is float64 .*; expected whole numbers"),
        ({"dwell_time": [None]}, "column dwell_time of events is object .*; expected numbers"),
        ({"user": 3}, "column user of events is int64 of shape"),
    ],
)
def test_columns_that_are_none_are_a_sentence(dataset, change, sentence):
    events = {**reported([event(3, 4, 2)]), **change}
    with pytest.raises(DataError, match=sentence):
        LiveEvents(dataset).append({n: c for n, c in events.items() if c is not None})


def test_a_log_without_times_has_nothing_later(dataset):
    replace(dataset.manifest, times="order").save(dataset.path)
    with pytest.raises(DataError, match="tiny has an order of events and no times"):
        LiveDataset.open(dataset.path)


def test_what_the_data_set_does_not_know_is_unknown_to_readers(dataset):
    view = LiveDataset(dataset.path, dataset.manifest)
    rows = [
        event(3, ITEMS + 4, 1, "impression"),
        event(3, ITEMS + 5, 1, "impression"),
        event(USERS + 1, 4, 1, "impression"),
        event(0, 4, 1, "impression"),
    ]
    events = reported(rows)
    events["author"] = np.array([2, 0, 0, 0])
    events["surface"] = np.array([1, 77, -3, 2])
    assert view.live.append(events).taken == 4
    assert view.live.append(events).taken == 0  # also of two unknown items at one moment
    history = view.timelines.history(3, LATE, IMPLICIT)
    assert history["item"].tolist() == [0, 0]
    assert history["author"].tolist() == [2, 0]
    assert history["surface"].tolist() == [1, 0]
    # users whom nobody knows are counted, and have no history
    assert view.timelines.lengths([0, USERS + 1], [LATE] * 2, IMPLICIT).tolist() == [0, 0]
    assert view.timelines.users().tolist() == [1, 2, 3]
    shown = counters_of(view).counts("item", [4, 0], [LATE] * 2, [None])[0, :, 0]
    assert shown.tolist() == [2, 0]
    everything = counters_of(view).counts("everything", [0], [LATE], [None])[0, 0, 0]
    assert everything == 5


def test_an_hour_is_counted_once_it_is_over_however_much_happens_in_it(dataset):
    view = LiveDataset(dataset.path, dataset.manifest)
    count = 10_000
    for part in np.split(np.arange(count), 5):
        hour = np.full(len(part), END + HOUR) + part
        view.live.append({
            "user": np.full(len(part), 3), "item": np.full(len(part), 4), "timestamp": hour,
            "action_type": np.zeros(len(part), int),
        })  # fmt: skip
        during = counters_of(view).counts("item", [4], [END + 2 * HOUR - 1], [None, 1])
        assert during.sum() == 0
    after = counters_of(view).counts("item", [4, 5], [END + 2 * HOUR] * 2, [None, 1])
    assert after[:, 0].tolist() == [[count, 0, 0]] * 2


def test_an_action_that_the_log_does_not_have_has_no_column(dataset):
    view = LiveDataset(dataset.path, dataset.manifest)
    assert view.live.append(reported([event(3, 4, 1, "click"), event(3, 4, 2)])).taken == 2
    assert counters_of(view).actions == ("impression", "liked", "hide")
    assert counters_of(view).counts("item", [4], [LATE], [None]).tolist() == [[[0, 1, 0]]]
    assert items_of(view, 3) == [4, 4]


#: Appends for ever, and says what was acknowledged.
APPEND_FOR_EVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from recsys.data.stores.live import LiveEvents
from recsys.data.stores.dataset import PreparedDataset
from tests.data.stores.live.small import reported
live = LiveEvents.open(sys.argv[3], PreparedDataset.open(sys.argv[2]))
number = int(sys.argv[4])
while True:
    rows = [(1 + n % 7, 1 + n % 11, number + n, "liked", None, 0) for n in range(3)]
    found = live.append(reported(rows))
    assert found.taken == 3 or set(found.set_aside) == {"event: duplicated row"}, found
    number += 3
    print(number, flush=True)
"""
ROOT = Path(__file__).parents[4]


def quarters_of(live: LiveEvents) -> list[int]:
    """When the explicit events were, ascending."""
    times = [block.columns["timestamp"] for block in live.blocks(EXPLICIT)]
    return sorted(((np.concatenate(times) - END) // (HOUR // 4)).tolist())


def appending(dataset, folder: Path, first: int) -> subprocess.Popen:
    command = [sys.executable, "-c", APPEND_FOR_EVER, ROOT, dataset.path, folder, first]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)


def test_what_was_acknowledged_outlives_a_killed_writer(dataset, tmp_path):
    """SIGKILL at many moments, and a reader that sees each event when it is acknowledged."""
    folder, number = tmp_path / "live", 1
    reader = LiveDataset.open(dataset.path, live=folder)
    for delay in (0.001, 0.02, 0.05):
        process = appending(dataset, folder, number)
        assert process.stdout is not None
        number = int(process.stdout.readline())
        assert reader.live.num_events(EXPLICIT) >= number - 1
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        said = process.stdout.read().split()
        process.stdout.close()
        number = int(said[-1]) if said else number
        # a batch is there whole or not at all; one that was not acknowledged is sent again
        assert quarters_of(reader.live) in (list(range(1, number)), list(range(1, number + 3)))
    reader.live.close()
    again = LiveDataset.open(dataset.path, live=folder)
    assert quarters_of(again.live) in (list(range(1, number)), list(range(1, number + 3)))
    again.live.close()


def test_writers_in_two_processes_lose_nothing(dataset, tmp_path):
    folder = tmp_path / "live"
    first, second = (appending(dataset, folder, number) for number in (1, 10_000))
    for process in (first, second):
        for _ in range(5):
            process.stdout.readline()
    said = {}
    for process, begin in ((first, 1), (second, 10_000)):
        process.kill()
        process.wait()
        lines = process.stdout.read().split()
        said[begin] = int(lines[-1]) - begin if lines else 15
        process.stdout.close()
    reader = LiveEvents.open(folder, dataset)
    held = quarters_of(reader)
    for begin, count in said.items():
        of_one = [quarter for quarter in held if begin <= quarter < begin + 9_000]
        assert len(of_one) >= count
        assert of_one == list(range(begin, begin + len(of_one)))
    reader.close()


def test_a_forked_process_must_open_its_own(dataset, tmp_path):
    live = LiveEvents.open(tmp_path / "live", dataset)
    events = reported([event(3, 4, 1)])  # polars does not work in a forked process
    process = os.fork()
    if not process:
        said = ""
        try:
            live.append(events)
        except DataError as error:
            said = str(error)
        finally:
            os._exit("open it in each worker process" not in said)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert live.append(events).taken == 1
    live.close()


def test_it_travels_to_other_processes(dataset, tmp_path):
    view = LiveDataset.open(dataset.path, live=tmp_path / "live")
    view.live.append(reported([event(3, 4, 1)]))
    content = pickle.dumps(view.of_tasks([]))
    view.live.close()
    there = pickle.loads(content)
    assert items_of(there, 3) == [4]
    assert items_of(there.as_known(dataset.manifest), 3) == [4]
    there.live.close()
    with pytest.raises(DataError, match="in memory cannot be handed to another process"):
        pickle.dumps(LiveDataset(dataset.path, dataset.manifest))


def test_a_folder_stays_with_a_data_set_that_grows(dataset, tmp_path):
    folder, rows = tmp_path / "live", [event(3, 4, 1), event(3, 5, 9), event(2, 6, 20)]
    live = LiveEvents.open(folder, dataset)
    live.append(reported(rows))
    live.close()
    newer = grown(dataset, rows[:2])
    view = LiveDataset.open(newer.path, live=folder)
    assert items_of(view, 3) == [4, 5]  # not twice
    assert items_of(view, 2) == [5, 6]
    assert view.live.num_events(EXPLICIT) == 1
    assert view.live.append(reported([event(3, 4, 1)])).set_aside == {
        "not after the last event of the data set": 1
    }
    assert view.live.forget(LATE) == 2  # but what the data set does not have stays
    assert view.live.forget(LATE) == 0
    assert items_of(view, 2) == [5, 6]
    view.live.append(reported([event(2, 7, 21)]))
    view.live.close()
    live = LiveEvents.open(folder, newer)
    assert live.num_events(EXPLICIT) == 2
    live.close()
    with pytest.raises(DataError, match=r"has no events before .* open its newest generation"):
        LiveEvents.open(folder, dataset)


def test_an_index_that_was_nobodys_does_not_become_somebodys(dataset, tmp_path):
    folder = tmp_path / "live"
    live = LiveEvents.open(folder, dataset)
    live.append(reported([event(3, ITEMS + 1, 9)]))
    live.close()
    newer = grown(dataset, [event(3, 4, 1)], new_items=3)
    view = LiveDataset.open(newer.path, live=folder)
    view.live.append(reported([event(3, ITEMS + 1, 10)]))  # now it has this index
    assert items_of(view, 3) == [4, 0, ITEMS + 1]
    shown = counters_of(view).counts("item", [ITEMS + 1], [LATE], [None])
    assert shown.tolist() == [[[0, 1, 0]]]
    view.live.close()
    # who has not opened the new generation yet
    older = LiveEvents.open(folder, dataset)
    [block] = older.blocks(EXPLICIT)
    assert block.columns["item"].tolist() == [0, 0]
    older.close()


def test_two_generations_of_a_data_set_share_a_folder_in_one_process(dataset, tmp_path):
    older = LiveEvents.open(tmp_path / "live", dataset)
    older.append(reported([event(3, 4, 1), event(3, 5, 9)]))
    stranger = make(tmp_path / "other", [event(2, 5, 3)], "other")
    newer = older.seen_by(grown(dataset, [event(3, 4, 1)]))
    assert (older.num_events(EXPLICIT), newer.num_events(EXPLICIT)) == (2, 1)
    newer.append(reported([event(2, 6, 20)]))
    assert (older.num_events(EXPLICIT), newer.num_events(EXPLICIT)) == (3, 2)
    assert older.append(reported([event(2, 6, 20)])).taken == 0
    with pytest.raises(DataError, match="live events of another data set"):
        newer.seen_by(stranger)
    older.close()


def test_another_reader_follows_what_was_forgotten_and_deleted(dataset, tmp_path):
    view = LiveDataset(dataset.path, dataset.manifest)
    rows = [event(3, 4, 1), event(3, 4, 2, "impression"), event(2, 6, 3)]
    view.live.append(reported(rows))
    before = counters_of(view).counts("item", [4, 6], [LATE] * 2, [None])
    assert before[0].tolist() == [[1, 1, 0], [0, 1, 0]]
    assert view.live.delete_users([3, 7]) == 2
    assert view.live.delete_users([3, 7]) == 0
    assert items_of(view, 3) == []
    assert items_of(view, 2) == [5, 6]
    after = counters_of(view).counts("item", [4, 6], [LATE] * 2, [None])
    assert after[0].tolist() == [[0, 0, 0], [0, 1, 0]]
    view.live.append(reported(rows[:1]))
    assert items_of(view, 3) == [4]
    assert counters_of(view).counts("item", [4], [LATE], [None])[0].tolist() == [[0, 1, 0]]


def test_a_deleted_user_is_gone_from_the_folder(dataset, tmp_path):
    live = LiveEvents.open(tmp_path / "live", dataset)
    live.append(reported([event(3, 4, 1), event(2, 6, 3)]))
    assert live.delete_users([3]) == 1
    live.close()
    view = LiveDataset.open(dataset.path, live=tmp_path / "live")
    assert (items_of(view, 3), items_of(view, 2)) == ([], [5, 6])
    view.live.close()


def test_another_data_sets_folder_is_refused(dataset, tmp_path):
    LiveEvents.open(tmp_path / "live", dataset).close()
    other = make(tmp_path / "other", EVERY_ACTION, fingerprint="second")
    with pytest.raises(DataError, match="live holds live events of another data set than tiny"):
        LiveEvents.open(tmp_path / "live", other)
    LiveEvents.open(tmp_path / "live", dataset).close()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").touch()
    with pytest.raises(DataError, match=r"holds thesis.txt and is no store of live events"):
        LiveEvents.open(tmp_path / "notes", dataset)
    with pytest.raises(DataError, match="is a file; give the folder"):
        LiveEvents.open(tmp_path / "notes" / "thesis.txt", dataset)
    live = LiveEvents.open(tmp_path / "live", dataset)
    with pytest.raises(DataError, match="already open in this process"):
        LiveEvents.open(tmp_path / "live", dataset)
    live.close()


@pytest.mark.parametrize("harm", ["cut", "empty", "flip", "lose", "position", "identity"])
def test_a_damaged_folder_is_a_sentence(dataset, tmp_path, harm):
    folder = tmp_path / "live"
    live = LiveEvents.open(folder, dataset)
    for quarter in range(1, 4):
        live.append(reported([event(3, 4, quarter)] * 20))
    live.close()
    file = folder / DATA_FILE
    if harm in ("cut", "empty"):
        with file.open("r+b") as opened:
            opened.truncate(4096 * (harm == "cut"))
    else:
        environment = lmdb.open(str(folder), max_dbs=2)
        state, events = (environment.open_db(name) for name in (b"live_state", b"live_events"))
        second = (2).to_bytes(8, "big")
        with environment.begin(write=True) as transaction:
            if harm == "flip":
                content = bytearray(transaction.get(second, db=events))
                content[-1] ^= 1
                transaction.put(second, bytes(content), db=events)
            elif harm == "lose":
                transaction.delete(second, db=events)
            else:
                transaction.put(harm.encode(), b"x", db=state)
        environment.close()
    with pytest.raises(DataError, match=r"store of live events .*live .*damaged.*new folder"):
        LiveEvents.open(folder, dataset)
    # what lies there is left as it is, and no lock of it is held
    with pytest.raises(DataError, match="damaged"):
        LiveEvents.open(folder, dataset)


def test_a_folder_that_cannot_be_written_takes_nothing(dataset, tmp_path, monkeypatch):
    live = LiveEvents.open(tmp_path / "live", dataset)
    view = LiveDataset(dataset.path, dataset.manifest, live=live)
    live.append(reported([event(3, 4, 1)]))
    with monkeypatch.context() as patched:
        patched.setattr("recsys.data.stores.live.written.zlib.crc32", _full)
        with pytest.raises(Exception, match="could not be written"):
            live.append(reported([event(3, 5, 2)]))
    assert items_of(view, 3) == [4]
    assert live.append(reported([event(3, 5, 2)])).taken == 1
    live.close()


def _full(*_: object) -> int:
    raise OSError(28, os.strerror(28))
