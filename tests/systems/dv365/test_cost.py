"""Appendix A: the paper's inputs give the paper's figures; own inputs by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.cli.cost import shown
from recsys.cli.main import invoke
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.runs.publication import write_publication
from recsys.systems.dv365.cost import (
    CostConfig,
    CostLine,
    HistoryCost,
    PublishingCost,
    ReadingCost,
    cost,
)
from tests.systems.dv365.runs import events, prepared_dataset, untrained_run
from tests.systems.dv365.towers import NOW


def figures(config: CostConfig) -> dict[str, CostLine]:
    return {line.name: line for line in cost(config)}


def test_the_paper_s_inputs_give_the_paper_s_figures() -> None:
    found = figures(CostConfig())
    assert found["key-value store of histories"].value == 8 * (360_000 + 100_000) * 3e9  # 11 PB
    assert found["key-value store of embeddings"].value == 136 * 58 * 3e9  # 24 TB
    assert found["reading histories online"].value == pytest.approx(100e6)
    assert found["serving embeddings"].value == 21e3
    assert found["slicing for a consumer's training"].value == pytest.approx(50e3)
    assert found["slicing for all trainings"].value == pytest.approx(500e3)
    assert found["GPUs of all trainings"].value == 3_380
    assert found["slicing at serving"].value == pytest.approx(6e6)
    assert found["GPUs of serving"].value == 780
    assert "hosts that publish" not in found
    printed = {name: shown(line) for name, line in found.items()}
    assert printed["key-value store of histories"] == "11 PB"
    assert printed["key-value store of embeddings"] == "23.7 TB"
    assert printed["histories / embeddings"] == "467 times"
    assert printed["reading histories online"] == "100 MW"
    assert printed["slicing for all trainings"] == "500 kW"
    assert printed["slicing at serving"] == "6 MW"


def test_every_figure_has_its_source_and_its_numbers() -> None:
    found = figures(CostConfig(publishing=PublishingCost(users_per_second=100.0)))
    assert found["key-value store of histories"].formula == (
        "8 B x (30,000 x 12 + 10,000 x 10) x 3,000,000,000 users"
    )
    assert all(line.source and line.formula for line in found.values())
    assert found["hosts that publish"].source == "not in the paper"


def test_throughput_instead_of_power_by_hand() -> None:
    # 1,000 requests/s at 50 histories/s of a host: 20 hosts of 200 W, at half the length
    reading = ReadingCost(
        at_length=50.0,
        kilowatts=None,
        requests_per_second=1_000.0,
        histories_per_second=50.0,
        watts_per_host=200.0,
    )
    history = HistoryCost(users=10, implicit_length=70.0, explicit_length=30.0)
    found = figures(CostConfig(history=history, reading=reading))
    assert found["reading histories online"].value == pytest.approx(8_000.0)


def test_publishing_by_hand() -> None:
    # 864,000 users, half of them a day, 1 user/s: 5 hosts of 100 W
    publishing = PublishingCost(users_per_second=1.0, share_per_day=0.5)
    found = figures(CostConfig(history=HistoryCost(users=864_000), publishing=publishing))
    assert found["hosts that publish"].value == pytest.approx(5.0)
    assert found["publishing"].value == pytest.approx(500.0)


def test_of_a_data_set_and_a_publication(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = events(300, NOW - 9 * DAY, NOW, seed=1, users=11)  # ten users
    dataset = prepared_dataset(tmp_path / "data", log)
    run = untrained_run(tmp_path / "run", dataset).folder
    reading = ["reading.kilowatts=null", "reading.requests_per_second=10", "measure_seconds=0.01"]
    words = ["cost", f"dataset={dataset.path}", f"run_dir={run}", "history.users=10", *reading]
    assert invoke(words) == 2
    assert "was never published" in capsys.readouterr().err
    write_publication(run, {"bytes_per_user": 500, "users_per_second": 4.0})
    assert invoke([*words, "--json"]) == 0
    printed = capsys.readouterr().out
    assert "computed from" in printed and "not in the paper" in printed
    found = {line["name"]: line for line in json.loads(printed.splitlines()[-1])}
    assert found["key-value store of embeddings"]["value"] == 5_000
    assert found["hosts that publish"]["value"] == pytest.approx(10 / 4 / 86_400)
    # 300 events of ten users: 30 a history, which is what reading was measured at
    assert found["reading histories online"]["formula"].endswith("x (30 / 30 events)")
    assert found["reading histories online"]["value"] > 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["reading.kilowatts=null"], "give reading.requests_per_second and reading.histories_per"),
        (["history.users=0"], "history.users is 0"),
        (["embedding.width=100"], "multiple of 16"),
        (["serving.left_by_optimisation=2"], "serving.left_by_optimisation is 2"),
        (["dataset=nowhere"], "the folder does not exist"),
        (["run_dir=nowhere"], "is not a run folder"),
        (["history.length=3"], "unknown key `history.length`"),
    ],
)
def test_what_cannot_be_computed_is_a_sentence(
    overrides: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["cost", *overrides]) == 2
    assert sentence in capsys.readouterr().err


def test_given_values_come_before_those_of_the_run(tmp_path: Path) -> None:
    dataset = prepared_dataset(tmp_path / "data", events(100, NOW - 9 * DAY, NOW, seed=1))
    run = untrained_run(tmp_path / "run", dataset).folder
    write_publication(run, {"bytes_per_user": 500, "users_per_second": 4.0})
    config = CostConfig(run_dir=str(run), publishing=PublishingCost(users_per_second=8.0))
    slower = replace(config, publishing=PublishingCost())
    hosts = [figures(one)["hosts that publish"].value for one in (config, slower)]
    assert hosts[1] == pytest.approx(2 * hosts[0])
