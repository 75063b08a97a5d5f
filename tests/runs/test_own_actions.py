"""A run on a log whose actions have names of their own, and without dwell times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.core.composition import compose
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import ACTION_TYPES, Split
from recsys.data.prepare.append import AppendConfig, append
from recsys.systems.dv365.system import DV365RunConfig, DV365System
from recsys.systems.runs import load_run, train
from recsys.systems.sequence.config import SequenceRunConfig
from tests.small_runs import TINY_RUN

START = 1_714_521_600


def log(path: Path, actions: list[str], first_hour: int, items: int = 20) -> pl.DataFrame:
    generator = np.random.default_rng(first_hour)
    frame = pl.DataFrame(
        {
            "user_id": generator.integers(0, 15, 500),
            "item_id": generator.integers(0, items, 500),
            "timestamp": START + (first_hour + generator.uniform(0, 240, 500)) * 3600,
            "action_type": generator.choice(actions, 500),
        }
    )
    frame.write_csv(path)
    return frame


def settings(folder: Path, *more: str) -> list[str]:
    return [
        *TINY_RUN[1:],
        "data=log",
        f"data.path={folder / 'log.csv'}",
        f"data.out={folder / 'prepared'}",
        f"run_dir={folder / 'run'}",
        "data.options.time_unit=s",
        "data.options.actions.VIEW=impression",
        "data.options.actions.cart=positive",
        "data.options.actions.abuse=negative",
        *more,
    ]


def test_slices_and_tasks_of_own_actions_and_days_that_bring_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = log(tmp_path / "log.csv", ["VIEW", "VIEW", "cart", "abuse"], 0)
    more = ["slices.own_actions=[{windows: [all]}]", "slices.shown=[{windows: [all]}]"]
    config = compose("train", DV365RunConfig, settings(tmp_path, *more))
    folder = train(config)
    printed = capsys.readouterr().err
    assert "Slices: of 257 explicit events 0 enter none." in " ".join(printed.split())
    run = load_run(folder)
    assert [task.name for task in run.manifest.tasks] == ["cart", "abuse"]
    names = [one.name for one in run.model.slice_set.slices]
    assert names[-9:] == [
        f"{kind}/{id_type}/all"
        for kind in ("explicit/cart", "explicit/abuse", "implicit/shown")
        for id_type in ("item", "author", "topic")
    ]
    predicted = DV365System().predict(run, Split.CHOOSE)

    later = log(tmp_path / "later.csv", ["VIEW", "cart", "buy"], 300)
    pl.concat([before, later]).write_csv(tmp_path / "log.csv")
    options = config.data.options
    meanings = options["actions"] | {"buy": "positive"}
    data, out = config.data.path, config.data.out
    append(AppendConfig(path=data, out=out, options=options | {"actions": meanings}))
    grown = DatasetManifest.load(tmp_path / "prepared")
    assert grown.action_types == (*ACTION_TYPES, "cart", "abuse", "buy")
    again = load_run(folder)  # with the slices and tables it was trained with
    assert [one.name for one in again.model.slice_set.slices] == names
    assert_frame_equal(DV365System().predict(again, Split.CHOOSE), predicted)


@pytest.mark.parametrize("split", ["time", "last"])
def test_what_is_left_to_the_data_set_is_in_the_runs_configuration(
    tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log(tmp_path / "log.csv", ["VIEW"] * 5 + ["cart", "abuse"], 0)
    small = [one for one in settings(tmp_path) if one.startswith(("data", "run_dir"))]
    more = [
        "system=sequence",
        "model=hstu",
        "model.width=8",
        "trainer.max_steps=2",
        "trainer.progress_bar=false",
        "evaluation.baselines=[recent_popularity,fit_popularity]",
        "evaluation.candidates=[all,alive]",
        f"data.options.split={split}",
    ]
    run = load_run(train(compose("train", SequenceRunConfig, [*small, *more])))
    config = run.config
    assert config.sequences.actions == [
        name for name in ACTION_TYPES if name not in ("impression", "hide", "skip")
    ] + ["cart"]
    has_times = split == "time"
    assert config.sequences.has_times is config.model.has_times is has_times
    assert ("alive" in config.evaluation.candidates) is has_times
    assert ("recent_popularity" in config.evaluation.baselines) is has_times
    printed = " ".join(capsys.readouterr().err.split())
    assert "Warning: Sequences: " in printed
    assert "(options.actions.VIEW=click) and prepare the log again." in printed
