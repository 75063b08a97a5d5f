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
    assert [m for m in again["metrics"] if m["name"] != "latency_ms"] == [
        m for m in found["metrics"] if m["name"] != "latency_ms"
    ]


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
        ((), "policy"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    log: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], sentence: str
) -> None:
    assert invoke(["online", f"simulation={log}", *given]) == 2
    assert sentence in capsys.readouterr().err
