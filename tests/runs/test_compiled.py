"""``trainer.compile`` on the CPU's inductor: the same losses, and sentences where it cannot be."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.cli.main import invoke
from tests.cuda_without_gpu.systems import FOLLOWED, write_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_log(folder)
    return folder


def train(name: str, log: Path, run_dir: Path, *settings: str) -> int:
    short = ("trainer.max_steps=3", "trainer.log_every_n_steps=1", f"run_dir={run_dir}")
    return invoke(["train", *FOLLOWED[name].settings(log), *short, *settings])


@pytest.mark.slow
def test_losses_are_those_of_a_training_that_is_not_compiled(log: Path, tmp_path: Path) -> None:
    """Without dropout, which draws other numbers once it is compiled."""
    losses = []
    for compiled in ("false", "true"):
        folder = tmp_path / compiled
        settings = (f"trainer.compile={compiled}", "encoder.dropout=0")
        assert train("dv365", log, folder, *settings) == 0
        rows = pl.read_csv(folder / "metrics.csv")
        losses.append(rows.filter(pl.col("metric") == "train/loss")["value"].to_list())
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("name", ["sasrec", "nxtpost", "wide_and_deep"])
def test_a_system_without_a_dense_part_of_its_own_is_a_sentence(
    name: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(name, log, tmp_path / "run", "trainer.compile=true") == 2
    assert "has no part that is compiled" in " ".join(capsys.readouterr().err.split())


def test_without_a_compiler_it_is_a_sentence(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert train("dv365", log, tmp_path / "run", "trainer.compile=true") == 2
    assert "there is no no-such-compiler" in " ".join(capsys.readouterr().err.split())
    assert train("dv365", log, tmp_path / "run") == 0  # the folder is free
