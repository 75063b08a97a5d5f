"""Publishing on several processes or by Ray: the same bytes, a sentence when one ends early."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys.core.engines import Engine
from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.embeddings import processes
from recsys.embeddings.processes import ComputeRows, part_of
from recsys.embeddings.publish import publish
from tests.data.prepare.engines import SMALL
from tests.embeddings.publications import config, published, records
from tests.systems.dv365.towers import NOW


@pytest.mark.parametrize("by", ["processes", "ray"])
def test_two_workers_write_what_one_process_writes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by: str, request: pytest.FixtureRequest
) -> None:
    if by == "ray":
        request.getfixturevalue("ray")
    workers = {"processes": 2} if by == "processes" else {"engine": SMALL}
    monkeypatch.setattr("recsys.embeddings.publish._USERS_PER_WRITE", 7)  # several blocks
    reports = []
    for days in (4, 0):  # everyone, then those who changed
        as_of = NOW - days * DAY
        one = publish(config(folder, "one", as_of=as_of))
        two = publish(config(folder, "two", as_of=as_of, **workers))
        assert records(folder / "one") == records(folder / "two") != []
        assert (one.scope, one.published_users) == (two.scope, two.published_users)
        reports.append(two)
    assert reports[0].published_users > reports[1].published_users > 0


def test_a_machine_that_computes_other_bits_ends_the_publication(
    ray: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(config(folder, "store", as_of=NOW - 3 * DAY))
    before = records(folder / "store")
    monkeypatch.setattr("recsys.embeddings.publish.digest", lambda rows: "of another machine")
    with pytest.raises(ArtifactError, match="computes other bits"):
        publish(config(folder, "store", engine=SMALL))
    assert records(folder / "store") == before


def test_what_a_worker_has_opened_is_of_one_publication(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def noted(*given: object) -> ComputeRows:
        made.append(given[0])
        return ComputeRows(*given)

    monkeypatch.setattr("recsys.embeddings.publish.ComputeRows", noted)
    for store in ("one", "two"):
        publish(config(folder, store))
    assert processes._opened(made[0]) is processes._opened(made[0])
    assert made[0] != made[1]  # the timelines may have lost a user in between


def test_processes_and_another_engine_are_not_given_together(folder: Path) -> None:
    with pytest.raises(ConfigError, match="leave processes out"):
        config(folder, "store", processes=2, engine=SMALL)


def test_users_are_divided_by_their_ids() -> None:
    parts = [part_of(user, 4) for user in [*range(1_000), *map(str, range(1_000))]]
    assert all(350 < parts.count(part) < 650 for part in range(4))
    assert parts == [part_of(user, 4) for user in [*range(1_000), *map(str, range(1_000))]]


@pytest.mark.slow  # three publications, one of them by two processes
@pytest.mark.parametrize(
    "workers", [1, 2], ids=["while another is started", "when both are started"]
)
@pytest.mark.parametrize("seconds", [0.0, 0.3], ids=["at once", "a little later"])
def test_a_killed_process_of_several_leaves_what_readers_saw(
    folder: Path, workers: int, seconds: float
) -> None:
    publish(config(folder, "store", as_of=NOW - 3 * DAY))
    old = records(folder / "store")
    before = multiprocessing.active_children()
    with ThreadPoolExecutor(1) as thread:
        publishing = thread.submit(
            publish, config(folder, "store", processes=2, only_changed=False)
        )
        while len(started := set(multiprocessing.active_children()) - set(before)) < workers:
            assert not publishing.done()
            time.sleep(0.001)
        time.sleep(seconds)
        started.pop().kill()
        with pytest.raises(RecsysError, match=r"has ended early .* nothing was changed"):
            publishing.result(timeout=120)
    assert not set(multiprocessing.active_children()) - set(before)
    assert records(folder / "store") == old
    publish(config(folder, "store", only_changed=False))
    publish(config(folder, "expected"))
    assert published(folder / "store") == published(folder / "expected")
