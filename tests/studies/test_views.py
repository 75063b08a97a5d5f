"""Studies of NxtPost through the command line, on a small log whose report split has three days."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.cli.study import configure
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.studies.plan import plan
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import train

USERS, ITEMS, EVENTS = 40, 40, 16
HOUR = 3_600_000
START = 1_600_000_000_000

OF_RUNS = (
    "model.tower.width=8",
    "loader.batch_size=16",
    "loader.labels=2",
    "trainer.max_epochs=1",
    "evaluation.metrics=[hits@1,hits@10,hits@20]",
    "evaluation.candidates=[all,alive]",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users engage with an item every twelve hours; a quarter come when the others leave."""
    path = tmp_path_factory.mktemp("views")
    generator = np.random.default_rng(0)
    rows = [
        (user, int(item), START + (step * 12 + user % 5) * HOUR)
        for user in range(USERS)
        for step, item in enumerate(generator.permutation(ITEMS)[:EVENTS])
        if user % 4 or step > 10
    ]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.with_columns(action_type=pl.lit("click")).write_parquet(path / "log.parquet")
    embeddings = generator.normal(size=(ITEMS, 8))
    np.savez(path / "posts.npz", item_id=np.arange(ITEMS), embedding=embeddings)
    return path


@pytest.fixture(scope="module")
def study(folder: Path) -> tuple[str, ...]:
    """What follows `recsys study`; its two runs are trained and measured in this process."""
    words = (
        "study=nxtpost_globo",
        f"out={folder / 'study'}",
        "variants.relative_time.seeds=[0]",
        "data=log",
        f"data.path={folder / 'log.parquet'}",
        f"data.out={folder / 'prepared'}",
        "data.options.choose_fraction=0.1",
        "data.options.report_fraction=0.3",
        f"posts.path={folder / 'posts.npz'}",
        *OF_RUNS,
    )
    for run in plan(configure([*words, "only=[long_term,relative_time]"])):
        train(run.config)
        evaluate(EvaluateConfig(run_dir=str(run.folder)))
    return words


def _rows(path: Path) -> list[list[str]]:
    """Cells of the first table of a page."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_staleness_is_a_curve_over_days_within_each_run(
    folder: Path, study: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ("only=[long_term,relative_time]", "metrics=[hits@20/all]")
    assert invoke(["study", *study, "view=nxtpost_staleness", *shown]) == 0
    assert "staleness.md" in capsys.readouterr().out
    content = json.loads((folder / "study" / "staleness.json").read_text())
    assert list(content["rows"]) == [
        f"{variant}, {day}" for variant in ("long_term", "relative_time") for day in (0, 1, 2)
    ]
    metrics = read_metrics_file(folder / "study" / "long_term" / "seed_0")
    for day in (0, 1, 2):
        metric = metrics[f"report/stale/{day}_days/hits@20/all"]
        row = content["rows"][f"long_term, {day}"]
        assert row["metrics"]["hits@20/all"]["mean"] == metric["value"]
        assert row["queries"]["hits@20/all"] == metric["queries"] > 0
    table = _rows(folder / "study" / "staleness.md")
    assert table[2][:2] == ["with long-term loss", "0"]
    assert (folder / "study" / "staleness.png").read_bytes().startswith(b"\x89PNG")


def test_days_of_the_split_have_queries_of_their_own(folder: Path, study: tuple[str, ...]) -> None:
    shown = ("only=[long_term,relative_time]", "metrics=[hits@20/all]")
    assert invoke(["study", *study, "view=nxtpost_days", *shown]) == 0
    content = json.loads((folder / "study" / "days.json").read_text())
    counts = [
        row["queries"]["hits@20/all"]
        for name, row in content["rows"].items()
        if name.startswith("long_term")
    ]
    assert len(counts) >= 3
    metrics = read_metrics_file(folder / "study" / "long_term" / "seed_0")
    assert sum(counts) == metrics["report/hits@20/all"]["queries"]


def test_cold_start_is_a_table_of_stand_ins(folder: Path, study: tuple[str, ...]) -> None:
    metrics = "metrics=[hits@10/all]"
    assert invoke(["study", *study, "view=nxtpost_cold_start", metrics]) == 0
    heading, _, *rows = _rows(folder / "study" / "cold_start.md")
    assert heading == ["variant", "history / users", "hits@10/all", "n", "seeds", "training, s"]
    n = {row[1]: int(row[3]) for row in rows}
    assert list(n)[:3] == ["own_history", "popular_posts", "similar_users"]
    for history in list(n)[:3]:
        parts = [n[f"{history}/{users}"] for users in ("no_event", "1_to_4_events")]
        assert sum(parts) == n[history] and min(parts) > 0


def test_what_was_not_measured_is_a_sentence(
    study: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*study, "view=nxtpost_days", "only=[relative_time]", "split=choose"]
    assert invoke(["study", *words, "summarise_only=true"]) == 2
    assert "holds no finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_curve_of_lengths_is_trained_in_processes(folder: Path, study: tuple[str, ...]) -> None:
    shown = (
        "only=[length_1,length_5]",
        "metrics=[hits@10/all]",
        "evaluation.baselines=[last_post]",
    )
    words = (*study, "view=nxtpost_length", *shown, "scorers=[last_post]")
    assert invoke(["study", *words]) == 0
    heading, _, *rows = _rows(folder / "study" / "length.md")
    assert heading[:2] == ["variant", "sequence length"]
    assert [row[:2] for row in rows[:3]] == [
        ["length_1", "1"],
        ["length_5", "5"],
        ["last_post", "-"],
    ]
    content = json.loads((folder / "study" / "length.json").read_text())
    metrics = read_metrics_file(folder / "study" / "length_5" / "seed_0")
    length_5 = content["rows"]["length_5"]["metrics"]["hits@10/all"]
    assert length_5["mean"] == metrics["report/hits@10/all"]["value"]
