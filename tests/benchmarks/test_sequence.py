"""The sequence benchmark: what all sides are given, and how their times become ratios."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.cli import bench
from recsys.core.composition import compose
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.metrics_file import replace_metrics
from recsys.systems.sequence.system import SequenceRunConfig

sequence = bench._load("sequence")


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """Five users of MovieLens' layout, of whom user u saw the films 1 … u + 3."""
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "movies.dat").write_text("".join(f"{i}::Film (1990)::Drama\n" for i in range(1, 9)))
    (folder / "users.dat").write_text("".join(f"{u}::F::25::1::1\n" for u in range(1, 6)))
    lines = (f"{u}::{i}::5::{i}\n" for u in range(1, 6) for i in range(1, u + 4))
    (folder / "ratings.dat").write_text("".join(lines))
    out = tmp_path / "prepared"
    data = [f"data_dir={tmp_path}", f"data.out={out}"]
    return ["system=sequence", "experiment=sasrec_ml1m", *data]


def test_peers_get_the_same_sequences(overrides: list[str], tmp_path: Path) -> None:
    config = compose("train", SequenceRunConfig, overrides)
    dataset, _ = open_or_prepare(config.data)
    path = tmp_path / "sequences.npz"
    sequence._write_sequences(EngagementStore.open(dataset, config.sequences), path)
    arrays = np.load(path)
    assert np.diff(arrays["offsets"]).tolist() == [4, 5, 6, 7, 8]
    films = np.split(arrays["item"], arrays["offsets"][1:-1])
    assert all(np.array_equal(film, films[-1][: len(film)]) for film in films)


def test_our_side_times_every_step(overrides: list[str]) -> None:
    open_or_prepare(compose("train", SequenceRunConfig, overrides).data)
    small = [*overrides, "loader.batch_size=2", "model.width=4"]
    moments = sequence._our_steps({"overrides": small, "threads": 1, "steps": 3})
    assert len(moments) == 3
    assert moments == sorted(moments)


def test_peers_get_the_size_of_our_model(overrides: list[str], tmp_path: Path) -> None:
    sizes = ["model.width=8", "model.blocks=3", "model.heads=4", "loader.max_length=50"]
    run_config = compose("train", SequenceRunConfig, [*overrides, *sizes, "model.max_length=50"])
    config = sequence.Config(batch_size=16, steps=5, warm_up=2, threads=1)
    given = sequence._peers_arguments(config, run_config, tmp_path / "sequences.npz")
    named = ("width", "blocks", "heads", "max_length", "dropout", "batch_size", "steps", "threads")
    assert [given[name] for name in named] == [8, 3, 4, 50, 0.1, 16, 7, 1]


def test_ratios_and_their_spread_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = sequence.Config(batch_size=100, run_dir=str(tmp_path / "run"))
    seconds = {"recsys": [0.5, 0.2, 0.4], "rectools": [2.0, 2.0, 3.0], "replay": [1.0, 1.0, 0.2]}
    figures = sequence._figures(config, seconds)
    names = ("ratio", "ratio_lowest", "ratio_highest")
    of_rectools, of_replay = (
        [figures[f"{name}_{peer}"] for name in names] for peer in ("rectools", "replay")
    )
    assert of_rectools == pytest.approx([7.5, 4.0, 10.0])  # of 4, 10 and 7.5
    assert of_replay == pytest.approx([2.0, 0.5, 5.0])  # of 2, 5 and 0.5
    assert sequence._ratio(figures, "replay") == "2.0 (0.5 to 5.0)"
    assert figures["users_per_second_recsys"] == pytest.approx(250.0)
    assert all(figures[f"hits@10_{side}"] is None for side in seconds)

    (tmp_path / "run").mkdir()
    metrics = {"report/hits@10/all": {"value": 0.31, "protocol": "…"}}
    replace_metrics(tmp_path / "run", "", metrics)
    sequence._kept_rectools(config).mkdir(parents=True)
    by_epoch = {"90": {"hits@10": 0.28}, "100": {"hits@10": 0.29}}
    (sequence._kept_rectools(config) / "quality.json").write_text(json.dumps(by_epoch))
    figures = sequence._figures(config, seconds)
    assert (figures["hits@10_recsys"], figures["hits@10_rectools"]) == (0.31, 0.29)
    assert figures["epochs_rectools"] == 100
