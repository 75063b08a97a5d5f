"""`recsys online` end to end: a small world simulated, prepared and played."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset

SIMULATION = (
    "simulator=explore_small",
    "simulator.users=80",
    "simulator.activity.scale=0.03",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=120",
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("online") / "log"
    assert invoke(["data", "simulate", *SIMULATION, f"out={folder}"]) == 0
    return folder


def test_two_policies_are_compared(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["online", f"simulation={log}", "policy=best", "against=random", "users=60"]
    assert invoke([*asked, "bootstrap.resamples=100", "--json"]) == 0
    out = capsys.readouterr().out
    assert "value_per_session" in out and "see_less_per_impression" in out
    found = json.loads(out.splitlines()[-1])
    assert 0 < found["users"] <= 60 and found["visits"] >= found["users"]
    metrics = {metric["name"]: metric for metric in found["metrics"]}
    assert metrics["value_per_session"]["difference"]["low"] > 0
    assert metrics["refused_per_session"]["policy"]["value"] == 0
    assert metrics["refused_per_session"]["percent"]["value"] is None  # of 0 there is no percent
    assert invoke([*asked, "bootstrap.resamples=100", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    of_the_clock = ("latency_ms", "processor_ms")
    assert [m for m in again["metrics"] if m["name"] not in of_the_clock] == [
        m for m in found["metrics"] if m["name"] not in of_the_clock
    ]


def test_a_funnel_is_played_and_its_ledger_read(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger"
    asked = ["online", f"simulation={log}", "policy=explore", "bootstrap.resamples=50"]
    noted = [*asked, "regret_every=4", f"ledger={ledger}", "--json"]
    assert invoke(noted) == 0
    out = capsys.readouterr().out
    assert "What the stages of explore lose" in out
    played = json.loads(out.splitlines()[-1])
    lost = [
        one["value"] for name, one in played["regret"]["explore"].items() if name != "best list"
    ]
    assert 0 < sum(lost) < played["regret"]["explore"]["best list"]["value"]
    assert invoke(["funnel", "report", f"ledger={ledger}", "--json"]) == 0
    out = capsys.readouterr().out
    assert "trending" in out and "integrity" in out
    found = json.loads(out.splitlines()[-1])
    assert found["requests"] == played["visits"]
    lefts = [stage["left"] for stage in found["stages"]]
    assert lefts == sorted(lefts, reverse=True) and lefts[0] <= found["candidates"]
    assert invoke(["funnel", "explain", f"ledger={ledger}", "request=3", "rows=5"]) == 0
    assert "Request 3: 5 of" in capsys.readouterr().out
    assert invoke(noted) == 2  # the same visits a second time are no log
    assert "played holds what was played before" in capsys.readouterr().err
    changed = [*asked, "against=explore", "changes=[exploration=null]"]
    assert invoke(changed) == 0
    assert "explore exploration=null" in capsys.readouterr().out


def test_an_adjuster_is_learned_from_a_ledger_and_played(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, out = tmp_path / "ledger", tmp_path / "adjuster.json"
    asked = ["online", f"simulation={log}", "policy=explore", "bootstrap.resamples=50", "--json"]
    cached = "cache.policy=adjusted,cache.max_age_hours=12"
    assert invoke([*asked, f"changes=[{cached},cache.sample_share=1]", f"ledger={ledger}"]) == 0
    capsys.readouterr()
    assert invoke(["funnel", "report", f"ledger={ledger}"]) == 0
    assert "% of the predictions came from the cache" in capsys.readouterr().out
    asked_to_learn = ["funnel", "adjuster", f"ledger={ledger}", f"out={out}", "--json"]
    assert invoke(asked_to_learn) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    whole = found["gaps"][-1]
    assert whole["adjusted"] < whole["stale"] and len(found["tasks"]) == 10
    assert invoke([*asked, f"changes=[{cached},cache.adjuster={out}]"]) == 0
    played = json.loads(capsys.readouterr().out.splitlines()[-1])
    metrics = {one["name"]: one["policy"]["value"] for one in played["metrics"]}
    assert metrics["pairs_scored"] < 95 and metrics["cached_share"] > 0.05
    assert invoke([*asked, f"changes=[{cached},cache.adjuster={log}/items.parquet]"]) == 2
    assert "is damaged or no adjuster" in capsys.readouterr().err


def test_the_log_is_prepared_with_its_tasks_actions_and_features(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    assert invoke(["data", "prepare", "data=simulated", f"path={log}", f"out={out}"]) == 0
    dataset = PreparedDataset.open(out)
    manifest = dataset.manifest
    assert [task.name for task in manifest.tasks][-1] == "see_less"
    assert "see_less" in manifest.negative_actions
    names = {feature.name for feature in manifest.features}
    assert {"user_region", "device", "network", "item_region", "integrity"} <= names
    assert "propensity" not in names
    rows = pl.read_parquet(log / "requests" / "*.parquet")
    assert sum(len(dataset.requests(split).item) for split in Split) == len(rows)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("policy=bets",), "policy bets is unknown; choose from best, random, popular"),
        (("policy=best", "tick_minutes=60"), "a tick of 60 minutes is too long"),
        (("policy=best", "days=4"), "days=4 is more than the world has after its log"),
        (("policy=best", "users=0"), "users is 0"),
        (("policy=best", "against=best"), "policy and against are both best"),
        (("policy=best", "changes=[seed=1]"), "best is no funnel"),
        (("policy=explore", "changes=[sed=1]"), "seed"),
        (("policy=best", "ledger=ledger"), "best is no funnel, and has no candidates to note"),
        ((), "policy"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    log: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], sentence: str
) -> None:
    assert invoke(["online", f"simulation={log}", *given]) == 2
    assert sentence in capsys.readouterr().err


def test_a_ledger_that_is_none_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["funnel", "report", f"ledger={tmp_path}"]) == 2
    assert "name the folder of a ledger" in capsys.readouterr().err
    assert invoke(["funnel", "explain", f"ledger={tmp_path}", "request=1"]) == 2
