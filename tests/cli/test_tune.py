"""`recsys tune` end to end in a small world: both ways, killed and gone on with, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recsys.cli.main import INTERRUPTED, invoke
from recsys.core.composition import load
from recsys.online.tuning.arena import Arena
from recsys.serving.funnel.cache.config import CacheConfig, read_points
from recsys.serving.funnel.config import FunnelConfig

SIMULATION = (
    "simulator=explore_small",
    "simulator.users=120",
    "simulator.activity.scale=0.05",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=120",
)
#: Takes value for being watched, which is worth something: less of that is better.
FUNNEL = """
sources: {trending: {quota: 100}, fresh: {quota: 50, hours: 24}}
second: {candidates: 60}
value: {expression: 10.0 * p(liked) - 0.2 * watch_time}
rerank: {apart: [{column: author, places: 3}]}
"""
TUNING = """
goal: value_per_session
constraints: {authors_per_session: {at_least: -20}}
parameters: {watch_time: {low: 0, high: 0.4}, "rerank.apart[0].places": {low: 2, high: 4}}
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "log"
    assert invoke(["data", "simulate", *SIMULATION, f"out={folder}"]) == 0
    return folder


@pytest.fixture
def asked(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("funnel.yaml").write_text(FUNNEL)
    Path("mine.yaml").write_text(TUNING)
    named = ["funnel=funnel.yaml", "tuning=mine.yaml", f"simulation={log}", "out=tuned"]
    return ["tune", *named, "tick_minutes=20", "log_hours=24", "bootstrap.resamples=50"]


def found_in(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "tuning.json").read_text())
    return content


def test_a_harmful_weight_goes_down_and_a_killed_tuning_goes_on(
    asked: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    online = [*asked, "trials=4", "drawn=2"]
    assert invoke([*online, "--json"]) == 0
    out = capsys.readouterr().out
    assert "Chosen: trial" in out and "other users" in out and "watch_time" in out
    found = json.loads(out.splitlines()[-1])
    best = max(
        (one for one in found["trials"] if one["changes"]["authors_per_session"] >= -20),
        key=lambda one: one["changes"]["value_per_session"],
    )
    assert best is found["trials"][found["chosen"] - 1] and found["chosen"] in found["pareto_front"]
    assert best["parameters"]["watch_time"] < 0.1
    assert best["changes"]["value_per_session"] > 0
    assert found["confirmation"]["changes"]["value_per_session"]["value"] > 0
    page = Path("tuned/tuning.html").read_text()
    assert "<svg" in page and "Pareto front" in page
    tuned = load(Path("tuned/funnel.yaml"), FunnelConfig)  # as `recsys online policy=` does
    assert f"{best['parameters']['watch_time']!r} * watch_time" in tuned.value.expression

    plays, real = [], Arena.play

    def killed_at_the_fourth(self: Arena, *given: Any) -> Any:
        plays.append(given)
        if len(plays) == 4:
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(Arena, "play", killed_at_the_fourth)
    again = [one.replace("out=tuned", "out=again") for one in online]
    assert invoke(again) == INTERRUPTED
    assert len(found_in("again")["trials"]) == 2
    assert invoke(again) == 0
    assert len(plays) == 4 + 2 + 2  # what was left, and the confirmation
    for one, other in zip(found["trials"], found_in("again")["trials"], strict=True):
        assert one["parameters"] == other["parameters"]
        assert one["changes"]["value_per_session"] == other["changes"]["value_per_session"]
    assert invoke([*again, "seed=5"]) == 2
    assert "holds a tuning with another seed" in capsys.readouterr().err


def test_offline_a_map_predicts_what_is_then_played(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    offline = [*asked, "way=offline", "trials=4", "drawn=3", "evaluations=64", "requests=20"]
    assert invoke(offline) == 0
    out = capsys.readouterr().out
    assert "Predicted from the trials before, and found" in out
    found = found_in("tuned")
    assert [bool(one["predicted"]) for one in found["trials"]] == [False, False, True, True]
    assert {"liked", "see_less", "kept", "age_hours"} <= set(found["trials"][0]["offline"])
    last = found["trials"][-1]
    assert last["parameters"]["watch_time"] < 0.2  # as it is
    assert last["predicted"]["value_per_session"] > 0
    assert last["changes"]["value_per_session"] > 0
    assert Path("tuned/tuning.html").read_text().count("<svg") == 2


def test_where_nothing_is_feasible_the_least_violating_is_named(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = TUNING.replace("{at_least: -20}", "{at_least: 900}")
    Path("mine.yaml").write_text(text)
    assert invoke([*asked, "trials=2", "drawn=1"]) == 0
    out = capsys.readouterr().out
    assert "No trial meets all constraints" in out and "violates them least" in out


CACHE = """
goal: value_per_session
constraints: {pairs_scored: {at_most: -5}}
parameters: {cache.max_age_hours: {low: 0, high: 12}, cache.items: {low: 60, high: 500}}
points:
  whole: {pairs_scored: {at_most: 0, at_least: 0}}
  less: {pairs_scored: {at_most: -5}}
  none: {pairs_scored: {at_most: -99.9}}
"""


def test_a_grid_is_played_whole_and_its_points_are_named(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(CACHE)
    cached = ["funnel.cache.policy=stale", "funnel.cache.max_age_hours=0"]
    assert invoke([*asked, *cached, "way=grid", "levels=2"]) == 0
    out = capsys.readouterr().out
    assert "none: no trial is within its limits" in out and "Operating points: tuned/oper" in out
    found = found_in("tuned")
    tried = [tuple(one["parameters"].values()) for one in found["trials"]]
    assert tried == [(0, 60), (0, 500), (12, 60), (12, 500)]
    less = max(
        (one for one in found["trials"] if one["changes"]["pairs_scored"] <= -5),
        key=lambda one: one["changes"]["value_per_session"],
    )
    now = CacheConfig(policy="stale", max_age_hours=1.0)
    points = read_points(Path("tuned/operating_points.yaml"), now)
    assert list(points) == ["whole", "less"] and points["whole"].max_age_hours == 0
    assert points["less"].max_age_hours == 12 and points["less"].policy == "stale"
    assert points["less"].items == less["parameters"]["cache.items"]


@pytest.mark.parametrize(
    ("changes", "given", "sentence"),
    [
        ({"{watch_time:": "{watch_tim:"}, (), "did you mean watch_time?"),
        ({"low: 0, high: 0.4": "low: 0.4, high: 0"}, (), "low must be below high"),
        ({"high: 0.4": "hihg: 0.4"}, (), "hihg"),
        ({"goal: value_per_session": "goal: value_per_sesion"}, (), "value_per_session?"),
        ({"authors_per_session": "harm"}, (), "harm is no metric of what is played"),
        ({"goal: value_per_session": "goal: refused_per_session"}, (), "no change in percent"),
        ({'"rerank.apart[0].places": {low: 2': "limit: {low: 2"}, (), "is 1000 in the funnel"),
        (
            {'"rerank.apart[0].places": {low: 2, high: 4}': "limit: {low: 2, high: 2000}"},
            ("way=offline",),
            "way=offline: limit is neither",
        ),
        ({}, ("trials=8",), "drawn=8 of trials=8"),
        ({"parameters:": "points: {low: {harm: {at_most: 0}}}\nparameters:"}, (), "watch_time is"),
        ({}, ("users=100",), "more than the 120 users of the world"),
        ({}, ("days=9",), "days=9 is more than the world has"),
        ({}, ("funnel=explor",), "there is no choice 'explor' for `funnel`"),
        ({}, ("tuning=elsewhere.yaml",), "elsewhere.yaml cannot be read"),
        ({}, ("simulation=nowhere",), "nowhere"),
        ({}, ("out=mine", "way=offline"), "mine is not empty and not the folder of a tuning"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    given: tuple[str, ...],
    sentence: str,
) -> None:
    text = TUNING
    for old, new in changes.items():
        text = text.replace(old, new)
    Path("mine.yaml").write_text(text)
    Path("mine/ledger").mkdir(parents=True)  # somebody's, as a tuning would have one
    keys = {one.partition("=")[0] for one in given}
    kept = [one for one in asked if one.partition("=")[0] not in keys]
    assert invoke([*kept, *given]) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed.splitlines()[-1]
