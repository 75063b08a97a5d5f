"""A funnel that learns by the hour in a world, beside the same one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.data.simulator import simulate
from tests.data.simulator.conftest import load_config
from tests.recurring.test_learn import RANKER

TINY = ("users=150", "activity.scale=0.1", "catalogue.items=2500", "catalogue.authors=120")


@pytest.mark.slow
def test_what_is_learned_is_taken_up_and_the_other_one_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(
        load_config("explore_small", *TINY, "world.recommender.shortlist=100"),
        tmp_path / "log",
        2_000,
    )
    prepared, run = tmp_path / "prepared", tmp_path / "ranker"
    data = ["data=simulated", f"data.path={tmp_path / 'log'}", f"data.out={prepared}"]
    assert invoke(["train", *data, *RANKER, "trainer.max_steps=2", f"run_dir={run}"]) == 0
    assert invoke(["export", f"run_dir={run}", "measure=false"]) == 0
    funnel = tmp_path / "funnel.yaml"
    funnel.write_text(
        "sources: {trending: {quota: 60}, fresh: {quota: 20, hours: 48}}\n"
        f"models: {{mine: {{path: {run / 'artifact'}, context: {{position: 0}}}}}}\n"
        "second: {scorer: mine, candidates: 60}\n"
        "value: {expression: p(liked) + 0.01 * watch_time}\n"
    )
    folder = tmp_path / "hourly"
    play = [
        *("recur", "play", f"online.simulation={tmp_path / 'log'}", f"online.policy={funnel}"),
        *(f"online.against={funnel}", "online.days=0.5", "online.bootstrap.resamples=20"),
        *(f"learning.folder={folder}", f"learning.dataset={prepared}", "learning.every_hours=4"),
    ]
    few = "train: ['trainer.max_steps=20','optim.dense.learning_rate=0.01']"
    capsys.readouterr()
    assert invoke([*play, f"learning.stages=[{{stage: second, {few}}}]", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    trained = found["trained"]
    measured = [one["measured"] for one in trained if one["measured"] is not None]
    assert measured and len(trained) >= 2, trained
    assert all("it takes 20 or more" in one["why"] for one in trained if one["why"])
    assert any(not one["is_worse"] for one in measured)
    [value] = [one for one in found["metrics"] if one["name"] == "value_per_session"]
    assert value["difference"]["value"] != 0  # on the same visits and draws
    # one ledger for each generation, and of each training its run alone
    ledgers = sorted((folder / "ledger").iterdir())
    assert len(ledgers) == len(trained) + 1
    rows = pl.concat(
        [pl.read_parquet(one / "*.parquet") for one in ledgers if list(one.glob("*.parquet"))]
    )
    assert rows.height == found["visits"]
    assert {path.name for path in (folder / "second").glob("*/*")} == {"run"}
    assert invoke(play) == 2
    assert "is there already" in capsys.readouterr().err
    assert invoke([*play, "online.ledger=x", f"learning.folder={tmp_path / 'n'}"]) == 2
    assert "the ledgers lie in learning.folder" in capsys.readouterr().err
