"""Cycles of a recurring training: what is served, what is refused, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.cli.main import invoke
from recsys.core.errors import ConfigError
from recsys.embeddings.stores import open_store
from recsys.recurring.config import GateConfig, RecurConfig
from recsys.recurring.cycle import Outcome, run_cycle
from recsys.recurring.generations import (
    EXPORTED,
    PUBLISHED,
    REFUSED,
    SERVED,
    TRAINED,
    WITHDRAWN,
    Generations,
)
from tests.recurring.days import DAY, FIRST_DAYS, configured, next_day
from tests.systems.ranker.test_system import SMALL


def cycle(config: RecurConfig) -> Outcome:
    """What a command comes to of which nothing was cut off."""
    (outcome,) = run_cycle(config)
    return outcome


def records(store: str) -> dict[object, bytes]:
    with open_store(store, readonly=True) as opened:
        users = sorted(opened.users())
        found = opened.get_many(users)
        return {user: one.rows.tobytes() for user, one in zip(users, found, strict=True) if one}


@pytest.mark.slow
def test_generations_follow_each_other(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path, keep=2)
    generations = Generations(Path(config.folder))
    first = cycle(config)
    assert (first.generation.number, first.generation.why) == (1, None)
    assert generations.current() == first.generation
    assert "change" not in first.generation.done["measured"]

    second = cycle(next_day(config, days, FIRST_DAYS)).generation
    assert generations.current() == second
    assert second.base == 1
    # one more day is reported, by both on the same rows
    assert (
        second.done[TRAINED]["report_from"] == first.generation.done[TRAINED]["report_from"] + DAY
    )
    assert second.done["measured"]["change"]["value"] is not None
    assert -1 <= second.done["compared"]["cosine"] <= 1
    assert second.done[PUBLISHED]["active_users"] > 0

    # the same day once more brings nothing, and makes nothing
    assert cycle(next_day(config, days, FIRST_DAYS)).generation is None
    assert [one.number for one in generations.all()] == [1, 2]

    third = cycle(next_day(config, days, FIRST_DAYS + 1))
    assert third.removed == (1,)
    assert not generations.run_dir(first.generation).exists()

    withdrawn, served = generations.roll_back()
    assert (withdrawn.number, withdrawn.state, served.number) == (3, WITHDRAWN, 2)
    assert generations.current().number == 2
    with pytest.raises(ConfigError, match="nothing to go back to"):
        for _ in range(2):  # the run of the first one was removed
            generations.roll_back()


@pytest.mark.slow
def test_a_generation_that_is_worse_is_not_served(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path)
    cycle(config)
    generations = Generations(Path(config.folder))
    strict = replace(config.gate, least_cosine=0.9999)
    refused = cycle(replace(next_day(config, days, FIRST_DAYS), gate=strict))
    assert "mean cosine" in refused.generation.why
    assert refused.generation.state == REFUSED
    assert generations.run_dir(refused.generation).exists()  # to be looked at
    assert EXPORTED not in refused.generation.done
    assert generations.current().number == 1
    # the next one is compared with what is served
    after = cycle(next_day(config, days, FIRST_DAYS + 1)).generation
    assert (after.number, after.base, after.state) == (3, 1, SERVED)


@pytest.mark.slow
def test_it_goes_on_from_the_weights_that_are_served(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path, rhythm="continue")
    cycle(config)
    second = cycle(next_day(config, days, FIRST_DAYS)).generation
    assert second.done[TRAINED]["warm_start"]
    assert second.done["compared"]["cosine"] > 0.5


def test_what_a_cycle_decides_itself_is_refused(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path)
    with pytest.raises(ConfigError, match=r"run_dir=.*, which a cycle decides itself"):
        cycle(replace(config, train=[*config.train, "run_dir=elsewhere"]))
    with pytest.raises(ConfigError, match="system=sequence, which predicts no tasks"):
        cycle(replace(config, train=["system=sequence", "data=log", "data.path=x"]))
    ranker = ["system=ranker", "data=log", "data.path=x"]
    with pytest.raises(ConfigError, match=r"which publishes no .* leave out gate\.consumers"):
        run_cycle(replace(config, train=ranker, gate=GateConfig(consumers=["runs/a"])))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="mine"):
        cycle(replace(config, folder=str(tmp_path / "mine")))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_the_commands(days: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(days, tmp_path)
    train = ",".join(config.train)
    arguments = [f"folder={config.folder}", f"train=[{train}]", "gate.worse_percent=50"]
    assert invoke(["recur", "run", *arguments]) == 0
    assert invoke(["recur", "status", f"folder={config.folder}"]) == 0
    assert "is served" in capsys.readouterr().out
    assert invoke(["recur", "rollback", f"folder={config.folder}"]) == 2
    assert "nothing to go back to" in capsys.readouterr().err.replace("\n", " ")
    assert invoke(["recur", "status", f"folder={tmp_path / 'nothing'}"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("step", [TRAINED, EXPORTED])
def test_a_cycle_that_was_killed_goes_on(days: Path, tmp_path: Path, step: str) -> None:
    whole = configured(days, tmp_path / "whole")
    killed = configured(days, tmp_path / "killed")
    for config in (whole, killed):
        cycle(config)
    cycle(next_day(whole, days, FIRST_DAYS))
    path = days / f"{FIRST_DAYS}.parquet"
    train = ",".join(killed.train)
    command = [sys.executable, "-m", "recsys", "recur", "run", f"folder={killed.folder}"]
    command += [f"train=[{train}]", f"path={path}", "gate.worse_percent=50"]
    generations = Generations(Path(killed.folder))
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        while step not in (generations.all()[-1].done if len(generations.all()) > 1 else {}):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert generations.current().number == 1
    # nobody was there before the next day: that one is not left out
    finished, next_one = run_cycle(next_day(killed, days, FIRST_DAYS + 1))
    assert (finished.generation.number, next_one.generation.number) == (2, 3)
    cycle(next_day(whole, days, FIRST_DAYS + 1))
    stores = [
        Generations(Path(config.folder)).current().done[PUBLISHED]["store"]
        for config in (whole, killed)
    ]
    assert records(stores[0]) == records(stores[1])


@pytest.mark.slow
def test_a_ranker_is_trained_again_and_publishes_nothing(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path)
    data = [setting for setting in config.train if setting.startswith("data")]
    config = replace(config, train=[*SMALL, "trainer.max_steps=4", *data], rhythm="continue")
    cycle(config)
    second = cycle(next_day(config, days, FIRST_DAYS)).generation
    assert second.state == SERVED and second.done[TRAINED]["warm_start"]
    assert second.done["measured"]["change"]["value"] is not None
    assert list(second.done) == ["appended", "trained", "measured", "exported"]
    run_dir = Generations(Path(config.folder)).run_dir(second)
    assert (run_dir / "artifact" / "manifest.json").is_file()
    assert (run_dir / "calibration.json").is_file()
    assert invoke(["recur", "status", f"folder={config.folder}"]) == 0


@pytest.mark.slow
def test_a_training_that_diverges_is_refused_and_not_tried_again(
    days: Path, tmp_path: Path
) -> None:
    config = configured(days, tmp_path)
    wild = replace(config, train=[*config.train, "optim.dense.learning_rate=1e30"])
    refused = cycle(wild).generation
    assert (refused.state, list(refused.done)) == (REFUSED, ["appended"])
    assert "finite" in refused.why
    generations = Generations(Path(config.folder))
    assert generations.current() is None and generations.unfinished() is None
    # the mended command is another generation, of the same days
    assert cycle(config).generation.state == SERVED
    assert cycle(next_day(wild, days, FIRST_DAYS)).generation.state == REFUSED
    assert cycle(next_day(wild, days, FIRST_DAYS)).generation is None
    assert generations.current().number == 2
