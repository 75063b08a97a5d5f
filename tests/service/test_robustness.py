"""Processes that are killed, more requests than can be answered, and generations swapped."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import psutil
import pytest

from recsys.cli.main import invoke
from recsys.data.contract.rejected import DUPLICATED_EVENT
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live import LiveEvents
from tests.service.small_service import Running, prepare


@pytest.fixture(scope="module")
def own(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that is harmed, and goes on."""
    running = Running(prepared, tmp_path_factory.mktemp("own") / "state")
    yield running
    running.kill()


@pytest.fixture
def funnel(tmp_path: Path) -> Path:
    """The file of a small funnel."""
    path = tmp_path / "other.yaml"
    path.write_text("sources: {trending: {quota: 50}}\nvalue: {expression: p(liked)}\n")
    return path


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(own: Running) -> None:
    now = own.client.get("/funnel").json()["now"]
    own.until(lambda: len(own.workers()) == 2)
    before = own.workers()
    taken = 0
    for pid in before:
        assert own.report({"user": 1, "item": 1, "timestamp": now + taken})["taken"] == 1
        taken += 1
        os.kill(pid, signal.SIGKILL)
        own.until(lambda pid=pid: pid not in own.workers() and len(own.workers()) == 2)
        own.until(lambda: own.client.get("/ready").status_code == 200)
    assert not set(before) & set(own.workers())
    again = [{"user": 1, "item": 1, "timestamp": now + place} for place in range(taken)]
    assert own.report(*again)["taken"] == 0
    assert own.recommend(1, k=3)["fallback"] is None


def test_a_service_that_is_killed_has_lost_nothing_that_it_had_acknowledged(
    prepared: Path, tmp_path: Path
) -> None:
    first = Running(prepared, tmp_path / "state")
    now = first.client.get("/funnel").json()["now"]
    born = [{"item": 888_888}]
    assert first.client.post("/items", json=born).json()["taken"] == 1
    of_born = {"user": 4, "item": 888_888, "timestamp": now}
    assert first.report(of_born)["taken"] == 1
    acknowledged: list[int] = []

    def report(begin: int) -> None:
        with httpx.Client(base_url=first.client.base_url) as client:
            for place in range(begin, begin + 100_000):
                event = {"user": 2, "item": 2, "timestamp": now + place}
                try:
                    if client.post("/events", json=[event]).json()["taken"] == 1:
                        acknowledged.append(place)
                except httpx.TransportError:
                    return

    with ThreadPoolExecutor(2) as pool:
        reports = [pool.submit(report, begin) for begin in (0, 100_000)]
        while len(acknowledged) < 60:
            pass
        first.kill()
        for one in reports:
            one.result()
    second = Running(prepared, tmp_path / "state")
    again = [{"user": 2, "item": 2, "timestamp": now + place} for place in acknowledged]
    assert second.report(*again) == {"taken": 0, "set_aside": {DUPLICATED_EVENT: len(again)}}
    assert second.client.post("/items", json=born).json()["taken"] == 0
    assert second.report(of_born)["taken"] == 0
    assert second.client.get("/users/4").json()["history"][0]["item"] == 888_888
    workers = second.workers()
    second.process.kill()  # alone: workers end with the process that has started them
    second.process.wait()
    second.until(lambda: not any(psutil.pid_exists(pid) for pid in workers))


def test_more_requests_than_can_be_answered_get_other_lists_or_come_again(
    prepared: Path, tmp_path: Path
) -> None:
    limits = ("limits.waiting=2", "limits.fallbacks=2")
    running = Running(prepared, tmp_path / "state", "workers=1", *limits)

    def ask(user: int) -> httpx.Response:
        return running.client.post("/recommend", json={"user": user, "k": 10})

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(ask, range(240)))
    statuses = Counter(one.status_code for one in found)
    assert set(statuses) == {200, 503}
    lists = [one.json() for one in found if one.status_code == 200]
    assert {one["fallback"] for one in lists} == {None, "busy"}
    assert all(len(one["items"]) == 10 for one in lists)
    assert {one.headers.get("retry-after") for one in found if one.status_code == 503} == {"1"}
    assert running.recommend(1, k=3)["fallback"] is None  # it recovers
    running.stop()
    assert running.process.returncode == 0


def test_a_swap_and_its_taking_back_fail_no_request(own: Running, funnel: Path) -> None:
    over, generations, failed = Event(), Counter[int](), []

    def ask(user: int) -> None:
        while not over.is_set():
            response = own.client.post("/recommend", json={"user": user, "k": 5})
            if response.status_code != 200 or len(response.json()["items"]) != 5:
                failed.append(response.text)
            generations[response.json().get("generation", 0)] += 1

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, user) for user in range(3)]
        try:
            assert invoke(["service", "swap", f"state={own.state}", f"funnel={funnel}"]) == 0
            own.until(lambda: generations[2] > 20)
            before = generations[1]
            assert invoke(["service", "rollback", f"state={own.state}"]) == 0
            own.until(lambda: generations[1] > before + 20)
            own.until_all_serve(1)
        finally:
            over.set()
        for one in asking:
            one.result()
    assert not failed and set(generations) == {1, 2}
    assert sorted(path.name for path in (own.state / "ledger").iterdir()) == ["000001", "000002"]


def test_another_folder_of_the_data_set_is_swapped_to_with_all_events(
    own: Running, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(prepared, copied)
    event = {"user": 3, "item": 3, "timestamp": own.client.get("/funnel").json()["now"]}
    assert own.report(event)["taken"] == 1
    assert invoke(["service", "swap", f"state={own.state}", f"dataset={copied}"]) == 0
    own.until_all_serve(3)
    for _ in range(6):  # either worker
        newest = own.client.get("/users/3", headers={"Connection": "close"}).json()["history"][0]
        assert newest["timestamp"] == event["timestamp"]
    assert own.report(event)["taken"] == 0
    assert own.report({**event, "item": 4})["taken"] == 1
    assert own.recommend(3)["fallback"] is None
    assert invoke(["service", "rollback", f"state={own.state}", "generation=1"]) == 0
    own.until_all_serve(1)
    assert own.report({**event, "item": 4})["taken"] == 0


def test_a_generation_that_is_damaged_is_refused_and_the_old_one_goes_on(own: Running) -> None:
    damaged = own.state / "generations" / "000002" / "generation.json"
    whole = damaged.read_text()
    damaged.write_text(whole.replace("trending", "trendy"))
    own.until_all_serve(1)
    assert invoke(["service", "rollback", f"state={own.state}", "generation=2"]) == 2
    assert own.client.get("/health").json()["refused"] is None  # nobody was pointed to it
    damaged.write_text(whole)
    assert invoke(["service", "rollback", f"state={own.state}", "generation=2"]) == 0
    own.until_all_serve(2)
    pointer = own.state / "current.json"
    pointer.write_text(pointer.read_text().replace("2", "7"))

    def refused() -> object:
        return own.client.get("/health", headers={"Connection": "close"}).json()["refused"]

    own.until(lambda: "current.json is damaged" in str(refused()))
    assert own.recommend(1)["generation"] == 2
    assert invoke(["service", "rollback", f"state={own.state}", "generation=1"]) == 0
    own.until_all_serve(1)
    own.until(lambda: refused() is None)


def test_a_generation_is_made_only_of_what_can_be_served(
    prepared: Path, tmp_path: Path, funnel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    asked = ["service", "swap", f"state={state}"]
    assert invoke([*asked, f"dataset={prepared}", f"funnel={funnel}"]) == 0
    assert invoke([*asked, f"funnel={funnel}"]) == 0  # nothing is otherwise
    assert "serves generation 1" in capsys.readouterr().out.splitlines()[-1]
    broken = tmp_path / "broken.yaml"
    broken.write_text("sources: {trending: {}}\nvalue: {expression: p(likd)}\n")
    assert invoke([*asked, f"funnel={broken}"]) == 2
    assert "did you mean liked" in capsys.readouterr().err
    models = "models: {m: {path: nowhere}}\nfirst: {scorer: m}\n"
    broken.write_text(models + "sources: {trending: {}}\nvalue: {expression: p(liked)}\n")
    assert invoke([*asked, f"funnel={broken}"]) == 2
    assert "nowhere" in capsys.readouterr().err
    other = prepare(tmp_path, "simulator.seed=9")
    LiveEvents.open(state / "events", PreparedDataset.open(prepared)).close()
    assert invoke([*asked, f"dataset={other}"]) == 2
    assert "live events of another data set" in capsys.readouterr().err
    assert [path.name for path in (state / "generations").iterdir()] == ["000001"]
    assert invoke(["service", "rollback", f"state={state}"]) == 2
    assert "no generation before the one that is served; it has 1" in capsys.readouterr().err


def test_a_ledger_that_cannot_be_written_fails_no_request(own: Running) -> None:
    ledger = own.state / "ledger" / "000001"
    shutil.rmtree(ledger)
    ledger.write_text("no folder")
    own.until(
        lambda: (
            own.recommend(1, k=3)["fallback"] is None
            and own.client.get("/health").json()["ledger_problem"] is not None
        )
    )
    own.until(
        lambda: any(
            line.startswith("recsys_ledger_lost") and float(line.split()[1]) > 0
            for line in own.client.get("/metrics").text.splitlines()
        )
    )
    assert len(own.recommend(1, k=3)["items"]) == 3


def test_a_key_is_asked_for(prepared: Path, tmp_path: Path) -> None:
    given = ("workers=1", "api_key_env=FEED_KEY")
    assert invoke(["serve", f"state={tmp_path / 'none'}", *given]) == 2
    running = Running(prepared, tmp_path / "state", *given, environment={"FEED_KEY": "kö1"})
    asked = {"json": {"user": 1}}
    assert running.client.post("/recommend", **asked).status_code == 401
    for header, status in ((b"no", 401), (b"", 401), ("kö1".encode(), 200), (b"k", 401)):
        response = running.client.post("/recommend", headers=[(b"X-API-Key", header)], **asked)
        assert response.status_code == status
    key = {"X-API-Key": "kö1".encode()}
    assert running.client.get("/metrics").status_code == 401
    assert running.client.get("/ready").status_code == 200
    for asked in ({"user": 1, "explain": True}, {"user": 1, "changes": {"limit": 3}}):
        assert running.client.post("/recommend", json=asked, headers=key).status_code == 403
    running.stop()


def test_what_cannot_be_served_is_one_sentence(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = f"state={tmp_path / 'state'}"
    for given, sentence in (
        ([], "has served nothing yet"),
        (["funnel=explore"], "has served nothing yet"),
        (["funnel=explore", "dataset=nowhere"], "nowhere is not a prepared data set"),
        (["funnel=explor", f"dataset={prepared}"], "explore"),
        (["funnel=explore", f"dataset={prepared}", "funnel.group=country"], "no column country"),
        (["funnel=explore", f"dataset={prepared}", "port=70000"], "port is 70,000"),
        (["funnel=explore", f"dataset={prepared}", "host=192.0.2.1"], "cannot be listened at"),
    ):
        assert invoke(["serve", state, *given]) == 2
        assert sentence in capsys.readouterr().err.replace("70000", "70,000")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    given = ["funnel=explore", f"dataset={prepared}", f"state={tmp_path / 'other'}"]
    assert invoke(["serve", *given]) == 2
    assert "is not the state of a service" in capsys.readouterr().err
