"""Cycles between trainings: the day's embeddings are published with the model that is served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_text
from recsys.embeddings.publish import DEFAULT_STORE, PublishConfig, publish
from recsys.embeddings.stores import Publication, open_store
from recsys.recurring.config import RecurConfig
from recsys.recurring.cycle import run_cycle
from recsys.recurring.generations import (
    APPENDED,
    PUBLISHED,
    REFRESHED,
    RUNNING,
    SERVED,
    TRAINED,
    Generations,
)
from recsys.recurring.status import rows
from tests.evaluation.baselines.planted import START
from tests.recurring.days import DAY, FIRST_DAYS, configured, next_day

Records = dict[object, tuple[int, bytes]]


def records(store: Path) -> tuple[Publication, Records]:
    """What readers see: the publication, and version and rows of each user."""
    with open_store(str(store), readonly=True) as opened:
        users = sorted(opened.users())
        found = zip(users, opened.get_many(users), strict=True)
        return opened.current(), {
            user: (one.version, one.rows.tobytes()) for user, one in found if one
        }


def command(config: RecurConfig, path: Path) -> list[str]:
    settings = [f"folder={config.folder}", f"train=[{','.join(config.train)}]", f"path={path}"]
    return ["recur", "run", *settings, "gate.worse_percent=50", f"train_every={config.train_every}"]


@pytest.fixture
def quiet_days(days: Path, tmp_path: Path) -> Path:
    """The log, in which but every third user is left after ten days, longer ago than a window."""
    folder = tmp_path / "quiet"
    folder.mkdir()
    for name in ("first.parquet", f"{FIRST_DAYS}.parquet", f"{FIRST_DAYS + 1}.parquet"):
        log = pl.read_parquet(days / name)
        is_old = pl.col("timestamp") < START + FIRST_DAYS // 2 * DAY
        log.filter(is_old | (pl.col("user_id") % 3 == 0)).write_parquet(folder / name)
    return folder


def test_embeddings_follow_the_log_between_trainings(
    quiet_days: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(quiet_days, tmp_path, train_every=3)
    day = quiet_days / f"{FIRST_DAYS}.parquet"
    (first,) = run_cycle(config)
    generations = Generations(Path(config.folder))
    store = generations.run_dir(first.generation) / DEFAULT_STORE
    before, former = records(store)

    assert invoke(command(config, day)) == 0
    printed = " ".join("".join(capsys.readouterr()).split())
    second = generations.all()[-1]
    assert (second.number, second.state, second.base) == (2, REFRESHED, 1)
    assert list(second.done) == [APPENDED, PUBLISHED]
    assert second.done[PUBLISHED]["as_of"] > first.generation.done[TRAINED]["report_until"]
    assert not generations.run_dir(second).exists()
    assert generations.current() == first.generation
    after, new = records(store)
    assert after.version > before.version
    of_this_day = {user for user, (version, _) in new.items() if version == after.version}
    assert of_this_day and len(of_this_day) < len(new)
    assert second.done[PUBLISHED]["published_users"] == len(of_this_day)
    assert second.done[PUBLISHED]["active_users"] == len(new)
    assert f"{len(of_this_day):,} of {len(new):,} users were published anew" in printed
    as_of = to_text(second.done[PUBLISHED]["as_of"])
    assert f"Its embeddings were published anew as of {as_of}" in printed
    # those who were left out are as a publication of everyone has them
    run_dir = str(generations.run_dir(first.generation))
    everyone = PublishConfig(run_dir=run_dir, as_of=as_of, store=str(tmp_path / "all"))
    publish(everyone)
    _, expected = records(tmp_path / "all")
    assert {user: row for user, (_, row) in new.items()} == {
        user: row for user, (_, row) in expected.items()
    }
    assert new.keys() == former.keys() and new != former

    # a day that comes twice
    (outcome,) = run_cycle(replace(config, path=str(day)))
    assert outcome.generation is None and len(generations.all()) == 2
    assert records(store) == (after, new)

    # killed when its embeddings were published, and the next day has come
    generations.write(replace(second, state=RUNNING, done={APPENDED: second.done[APPENDED]}))
    cut_off, third = run_cycle(next_day(config, quiet_days, FIRST_DAYS + 1))
    assert (cut_off.generation.number, third.generation.number) == (2, 3)
    assert {one.generation.state for one in (cut_off, third)} == {REFRESHED}
    assert cut_off.generation.done[PUBLISHED]["published_users"] == 0  # nothing was left to do
    assert [row.age for row in rows(generations)] == [0.0] * 3
    assert [row.day for row in rows(generations)] == [
        first.generation.done[TRAINED]["report_from"] + number * DAY for number in range(3)
    ]


def test_a_model_without_embeddings_is_trained_in_every_cycle(days: Path, tmp_path: Path) -> None:
    ranker = ["system=ranker", "data=log", "data.path=x"]
    config = replace(configured(days, tmp_path, train_every=2), train=ranker)
    with pytest.raises(ConfigError, match=r"publishes no user embeddings.* and train_every"):
        run_cycle(config)


@pytest.mark.slow  # two trainings, and the start of some processes
def test_a_killed_one_goes_on_and_the_rhythm_stays(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path, train_every=2)
    run_cycle(config)
    words = [sys.executable, "-m", "recsys", *command(config, days / f"{FIRST_DAYS}.parquet")]
    moment, kills = 2.0, 0
    while True:  # later each time, from the start to the end of the command
        with subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            end = time.monotonic() + moment
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            if process.poll() is not None:
                assert process.returncode == 0
                break
            process.send_signal(signal.SIGKILL)
        moment, kills = moment * 1.5, kills + 1
    assert kills
    generations = Generations(Path(config.folder))
    first, second = generations.all()
    assert (first.state, second.state, second.base) == (SERVED, REFRESHED, 1)
    run_dir = generations.run_dir(first)
    as_of = to_text(second.done[PUBLISHED]["as_of"])
    publish(PublishConfig(run_dir=str(run_dir), as_of=as_of, store=str(tmp_path / "all")))
    (_, served), (_, expected) = records(run_dir / DEFAULT_STORE), records(tmp_path / "all")
    assert {user: row for user, (_, row) in served.items()} == {
        user: row for user, (_, row) in expected.items()
    }
    (third,) = run_cycle(next_day(config, days, FIRST_DAYS + 1))
    assert (third.generation.number, third.generation.state, third.generation.base) == (
        3,
        SERVED,
        1,
    )
