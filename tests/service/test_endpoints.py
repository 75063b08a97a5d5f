"""What the endpoints answer: of a real service of two workers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.service.small_service import Running

HOUR = 3_600_000


def now(service: Running) -> int:
    found: int = service.client.get("/funnel").json()["now"]
    return found


def some_user(service: Running, number: int) -> int:
    found: int = service.client.get("/users").json()["users"][number]
    return found


def test_an_event_counts_with_the_next_request_of_every_worker(service: Running) -> None:
    user = some_user(service, 0)
    for _ in range(3):
        first = service.recommend(user, k=5)["items"]
        assert len(set(first)) == 5
        seen = {"user": user, "item": first[0], "timestamp": now(service)}
        assert service.report(seen) == {"taken": 1, "set_aside": {}}
        for _ in range(8):  # connections of their own, which either worker takes
            assert first[0] not in service.recommend(user, k=5)["items"]
        newest = service.client.get(f"/users/{user}").json()["history"][0]
        assert (newest["item"], newest["action"]) == (first[0], "impression")
        assert service.report(seen)["taken"] == 0  # which may be made again


def test_what_was_done_raises_what_is_expected(service: Running) -> None:
    user, other = some_user(service, 1), some_user(service, 2)
    moment = now(service)

    def predicted(item: int) -> dict[str, float]:
        rows = service.recommend(other, k=1, moment=moment + HOUR, explain=True)
        found: list[dict[str, Any]] = rows["explanation"]["candidates"]
        return next(one for one in found if one["item"] == item)

    item = service.recommend(other, k=1, moment=moment + HOUR)["items"][0]
    before = predicted(item)
    liked = {"user": user, "item": item, "timestamp": moment}
    service.report({**liked}, *({**liked, "action": one} for one in ("liked", "save")))
    after = predicted(item)
    assert after["liked"] > before["liked"] and after["save"] > before["save"]
    assert after["comment"] < before["comment"] and after["facts"] == before["facts"]


def test_events_that_cannot_be_taken_are_counted_by_reason(service: Running) -> None:
    user, moment = some_user(service, 3), now(service)
    reported = service.report(
        {"user": user, "item": "nothing", "timestamp": moment},
        {"user": "nobody", "item": 1, "timestamp": moment},
        {"user": "nobody else", "item": 1, "timestamp": moment},
        {"user": user, "item": 1, "timestamp": moment, "action": "juggled"},
        {"user": user, "item": 1, "timestamp": 5},
        {"user": user, "item": 1, "timestamp": moment, "dwell_time": -1},
    )
    assert reported["taken"] == 3
    assert sorted(reported["set_aside"].values()) == [1, 1, 1]
    assert "action_type is unknown" in reported["set_aside"]


def test_the_clock_of_a_log_goes_by_its_newest_event_and_makes_no_leap(service: Running) -> None:
    user, moment = some_user(service, 6), now(service)
    far = {"user": user, "item": 2, "timestamp": moment + 25 * HOUR}
    assert service.report(far) == {"taken": 0, "set_aside": {"timestamp is in the future": 1}}
    assert service.report({"user": user, "item": 2, "action": "liked"})["taken"] == 1
    assert moment <= now(service) <= moment + 1_000


def test_context_is_that_of_the_data_set_and_leaves_the_ledger_as_it_is(service: Running) -> None:
    user = some_user(service, 7)
    for context in ({}, {"surface": "explore"}, {"hour_of_day": 5}, {"surface": 3}):
        asked = service.recommend(user, k=3, context=context)
        found = service.client.get(f"/explain/{asked['request']}").json()["candidates"]
        assert [row["item"] for row in found if row["ended"] is None] == asked["items"]
    lost = "recsys_ledger_lost"
    metrics = service.client.get("/metrics").text.splitlines()
    assert all(line.endswith(" 0.0") for line in metrics if line.startswith(lost))
    body = {"user": user, "context": {"colour": "red"}}
    refused = service.client.post("/recommend", json=body)
    assert refused.status_code == 400
    assert "colour is no context feature of the data set; it has surface" in refused.json()["error"]


def test_any_id_can_be_looked_up_and_no_address_is_a_sentence(service: Running) -> None:
    for user in ("a/b/c", "a%2Fb", "ünïcode", "x" * 300):
        assert service.client.get(f"/users/{user}").json()["known"] is False
    missing = service.client.get("/nothing")
    assert missing.status_code == 404
    assert missing.json() == {"error": "GET /nothing is no address of the service."}


def test_a_request_is_explained_by_whichever_worker_is_asked(service: Running) -> None:
    asked = [service.recommend(some_user(service, place), k=4) for place in range(4)]
    for one in asked:
        for _ in range(3):
            alone = {"Connection": "close"}
            found = service.client.get(f"/explain/{one['request']}", headers=alone)
            rows = found.json()["candidates"]
            listed = [row["item"] for row in rows if row["ended"] is None]
            assert listed == one["items"]
            assert all(row["position"] is None for row in rows[4:])
            assert {row["ended"] for row in rows[4:]} <= {"seen", "integrity", "first", "list"}
    for number in ("1", "12345678901234567", "nothing", "9" * 40):
        assert service.client.get(f"/explain/{number}").status_code == 404


def test_a_user_of_whom_nothing_is_known_gets_what_is_popular(service: Running) -> None:
    first = service.recommend("nobody", k=10, moment=now(service))
    assert len(first["items"]) == 10 and first["fallback"] is None and "empty" not in first
    nothing = service.recommend("nobody", changes={"filters.min_integrity": 1})
    assert nothing["items"] == [] and "at integrity" in nothing["empty"]
    nothing = service.recommend("nobody", moment=5)  # before there was anything
    assert nothing["empty"] == "no source found an item that the user has not seen"
    assert service.client.get("/users/nobody").json() == {
        "user": "nobody",
        "known": False,
        "group": "unknown",
        "history": [],
    }
    assert len(service.recommend(10**30, k=3)["items"]) == 3
    assert len(service.recommend("", k=3)["items"]) == 3


def test_a_request_may_change_the_funnel_for_itself(service: Running) -> None:
    user, moment = some_user(service, 5), now(service)

    def asked(**changes: Any) -> list[int]:
        found: list[int] = service.recommend(user, k=8, moment=moment, changes=changes)["items"]
        return found

    calm = {"exploration": None, "sources.fresh": None}  # which are drawn for each request
    usual = asked(**calm)
    plain = {"exploration": None, "rerank.apart": [], "rerank.at_most": []}
    by_likes = {"value.expression": "p(liked)", **plain}
    found = service.recommend(user, k=8, moment=moment, changes=by_likes, explain=True)
    rows = [row for row in found["explanation"]["candidates"] if row["ended"] in (None, "list")]
    best = sorted((row["liked"] for row in rows), reverse=True)[:8]
    assert found["scores"] == pytest.approx(best)
    assert asked(**{"filters.min_integrity": 1.0}) == []  # every candidate is left out
    assert asked(**calm) == usual != found["items"]


def test_the_same_draws_give_the_same_list_as_another_request(service: Running) -> None:
    user, moment = some_user(service, 5), now(service)
    asked = [service.recommend(user, k=20, moment=moment, draws=draws) for draws in (3, 3, 4)]
    assert asked[0]["items"] == asked[1]["items"] != asked[2]["items"]
    assert len({one["request"] for one in asked} | {"3", "4"}) == 5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"value.expression": "p(likd)"}, "did you mean liked"),
        ({"value.expression": "__import__('os')"}, "__import__"),
        ({"value.expresion": "p(liked)"}, "expresion"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": [1]}, "limit"),
        ({"sources": None}, "sources"),
        ({"rerank.apart": [{"column": "colour"}]}, "no column colour"),
        ({"": 1}, "changes"),
        ({"filters": {"min_integrity": "high"}}, "filters"),
        ({"group": None}, "group"),
    ],
)
def test_changes_that_make_no_funnel_are_one_sentence(
    service: Running, changes: dict[str, Any], sentence: str
) -> None:
    response = service.client.post("/recommend", json={"user": 1, "changes": changes})
    assert response.status_code == 400 and sentence in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"user": 1, "k": 0}', 400),
        (b'{"user": 1, "k": 1000000}', 400),
        (b'{"user": 1, "k": 2.5}', 400),
        (b'{"user": true}', 400),
        (b'{"user": 1, "moment": -1}', 400),
        (b'{"user": 1, "moment": 1e400}', 400),
        (b'{"user": 1, "kk": 3}', 400),
        (b'{"user": "\\ud800"}', 400),
        (b"[" * 100_000, 400),
        (b'{"user": 1, "changes": ' + b'{"a":' * 5_000, 400),
        (json.dumps({"user": "x" * 5_000_000}).encode(), 413),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else "",
)
def test_a_body_that_cannot_be_used_is_one_sentence(
    service: Running, body: bytes, status: int
) -> None:
    response = service.client.post("/recommend", content=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"] and response.json()["error"].endswith(".")
    assert service.client.get("/ready").json()["ready"]


def test_a_report_has_a_limit(service: Running) -> None:
    one = {"user": 1, "item": 1}
    response = service.client.post("/events", json=[one] * 10_001)
    assert response.status_code == 400 and "at most 10,000" in response.json()["error"]
    assert service.report() == {"taken": 0, "set_aside": {}}


def test_what_is_served_and_counted_can_be_read(service: Running) -> None:
    found = service.client.get("/funnel").json()
    assert found["stages"] == ["mix", "seen", "integrity", "first", "second", "value", "list"]
    assert found["settings"]["value"]["expression"] == found["value"]
    assert set(found["tasks"]) >= {"liked", "watch_time", "see_less"}
    service.until_all_serve(1)
    text = service.client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    answered = float(lines['recsys_requests_total{endpoint="recommend",status="200"}'])
    assert float(lines['recsys_candidates_out_total{stage="list"}']) > 0
    assert float(lines['recsys_stage_seconds_count{stage="trending"}']) <= answered
    assert [float(lines[one]) for one in lines if one.startswith("recsys_generation{")] == [1, 1]
    assert float(lines["recsys_ledger_lost"]) == 0


def test_an_item_that_comes_is_a_candidate_of_every_worker_and_is_told_of(service: Running) -> None:
    moment, user = now(service), some_user(service, 8)
    [like] = service.recommend(user, k=1, explain=True)["explanation"]["candidates"][:1]
    facts = dict(like["facts"])
    author, topic = facts.pop("author_id"), facts.pop("topic_id")
    facts.pop("published_at", None)
    known = {"item": like["item"]}
    born = {"item": 777_777, "author": author, "topic": topic, "features": facts}
    answer = service.client.post("/items", json=[born, known, {"item": "none"}, born])
    reasons = {
        "item is known already": 2,
        "item is no id of the log, whose ids are whole numbers": 1,
    }
    assert answer.json() == {"taken": 1, "set_aside": reasons}
    # an event of it counts, whether the worker offers it yet or not
    liked = {"user": user, "item": 777_777, "timestamp": moment + 10, "action": "liked"}
    assert service.report(liked)["taken"] == 1
    changes = {"sources": {"fresh": {"quota": 500, "hours": 1}}, "first.candidates": 10_000}

    def offered() -> bool:
        other = some_user(service, 9)
        found = service.recommend(
            other, k=1, moment=moment + 10_000, changes=changes, explain=True
        )["explanation"]["candidates"]
        return any(row["item"] == 777_777 and row["facts"] == like["facts"] for row in found)

    for _ in range(6):  # either worker
        service.until(offered)
    [newest] = service.client.get(f"/users/{user}").json()["history"][:1]
    assert (newest["item"], newest["facts"]["author_id"]) == (777_777, author)
    refused = service.client.post("/items", json=[{"item": 5, "features": {"colour": "red"}}])
    assert refused.status_code == 400
    assert "colour is nothing that the data set states of items" in refused.json()["error"]


def test_an_item_is_announced_anew_and_withdrawn(service: Running) -> None:
    user, moment = some_user(service, 8), now(service)
    features = {"integrity": 0.75}
    announced = {"item": 888_888, "timestamp": moment - 1_000, "features": features}
    assert service.client.post("/items", json=[announced]).json()["taken"] == 1
    changes = {"sources": {"fresh": {"quota": 500, "hours": 1}}, "first.candidates": 10_000}
    asked = {"k": 1, "moment": moment + 10_000, "changes": changes, "explain": True}

    def row() -> dict | None:
        rows = service.recommend(user, **asked)["explanation"]["candidates"]
        return next((one for one in rows if one["item"] == 888_888), None)

    def is_known(integrity: float) -> bool:
        found = row()  # below 0.5 the filter leaves it out
        return found is not None and (found["facts"]["integrity"], found["ended"]) == (
            integrity,
            "integrity" if integrity < 0.5 else "first",
        )

    for integrity in (0.75, 0.25):
        announced["features"] = {"integrity": integrity}
        service.client.post("/items", json=[announced])
        for _ in range(6):  # either worker
            service.until(lambda wanted=integrity: is_known(wanted))
    again = service.client.post("/items", json=[announced]).json()
    assert again == {"taken": 0, "set_aside": {"item is known already": 1}}
    listed = service.recommend(user, k=1, draws=1)["items"][0]  # of the data set itself
    for item in (888_888, listed):
        response = service.client.delete(f"/items/{item}")
        assert (response.status_code, response.json()) == (200, {"withdrawn": str(item)})
    assert all(row() is None for _ in range(6))
    assert all(listed not in service.recommend(user, k=50, draws=1)["items"] for _ in range(6))
    assert service.client.delete("/items/none").status_code == 404
    assert service.client.post("/items", json=[announced, {"item": listed}]).json()["taken"] == 2
    service.until(lambda: row() is not None)
    assert listed == service.recommend(user, k=1, draws=1)["items"][0]
