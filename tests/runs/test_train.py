"""A run leaves a whole folder, and resumes exactly after kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
import wandb
from polars.testing import assert_frame_equal

from recsys.core.composition import compose, save
from recsys.core.errors import ConfigError
from recsys.data.batches.requests import RequestBatch
from recsys.data.contract.schema import Split
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.runs.checkpoints import BEST, CHECKPOINTS, LAST
from recsys.runs.config import LoggerConfig
from recsys.runs.files import CONFIG_FILE
from recsys.runs.folder import LOCK_FILE, WANDB_FILE, begin, held
from recsys.runs.metrics_log import read_metrics
from recsys.systems.dv365.module import DV365
from recsys.systems.dv365.system import DV365RunConfig, DV365System
from recsys.systems.runs import load_config, load_run, train
from tests.small_runs import TINY_RUN

from .run_checks import assert_equal_runs, assert_equal_states


@pytest.fixture(scope="module")
def finished(
    data_overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[DV365RunConfig, Path]:
    """A configuration and the folder of the run it gave."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = compose("train", DV365RunConfig, [*TINY_RUN, *data_overrides, f"run_dir={folder}"])
    return config, train(config)


def test_a_run_leaves_a_whole_folder(finished: tuple[DV365RunConfig, Path]) -> None:
    run_config, folder = finished

    assert str(folder) == run_config.run_dir
    config = load_config(folder)
    assert config.model == run_config.model
    assert config.slices == run_config.slices
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val/ne/liked"]["value"] > 0
    assert "split choose" in metrics["val/ne/liked"]["protocol"]
    assert "lowest val/ne/mean" in metrics["val/ne/liked"]["protocol"]
    log = read_metrics(folder)
    assert log.filter(metric="train/loss")["step"].to_list() == list(range(1, 13))
    assert log.filter(metric="val/ne/mean")["step"].to_list() == [4, 8, 12]
    steps = {load_run(folder, one).checkpoint.step for one in ("best", "last")}
    names = [BEST, LAST, *(f"step-{step:08d}.ckpt" for step in sorted(steps))]
    assert sorted(path.name for path in (folder / CHECKPOINTS).iterdir()) == names


def test_the_best_checkpoint_is_the_one_with_the_lowest_choose_entropy(
    finished: tuple[DV365RunConfig, Path],
) -> None:
    folder = finished[1]
    validations = read_metrics(folder).filter(metric="val/ne/mean")
    best = validations.sort("value", "step").row(0, named=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val/ne/mean"]["value"] == pytest.approx(best["value"], rel=1e-12)
    assert load_run(folder).checkpoint.step == best["step"]


@pytest.mark.parametrize(
    ("interval", "max_steps", "validated"),
    [(None, 2, [2]), (3, 5, [3, 5]), (100, -1, [8]), (3, -1, [3, 6, 8])],
    ids=["before the first", "after the last", "long interval", "end of the last epoch"],
)
def test_the_last_step_is_validated(
    run_config: DV365RunConfig, interval: int | None, max_steps: int, validated: list[int]
) -> None:
    settings = replace(run_config.trainer, max_steps=max_steps, validate_every_n_steps=interval)
    loader = replace(run_config.loader, batch_requests=_requests_for(run_config, 8))
    folder = train(replace(run_config, trainer=settings, loader=loader))
    validations = read_metrics(folder).filter(metric="val/ne/mean")
    assert validations["step"].to_list() == validated
    assert load_run(folder).checkpoint.step == validations.sort("value", "step")["step"][0]


def test_an_interval_between_validations_may_span_epochs(
    run_config: DV365RunConfig, tmp_path: Path
) -> None:
    """Two epochs of four steps, also where the run was cut off in between."""
    constant = replace(run_config.optim.schedule, final_fraction=1.0)
    settings = replace(run_config.trainer, max_epochs=2, validate_every_n_steps=5)
    config = replace(
        run_config,
        trainer=settings,
        loader=replace(run_config.loader, batch_requests=_requests_for(run_config, 4)),
        optim=replace(run_config.optim, schedule=constant),
    )
    whole = train(replace(config, run_dir=str(tmp_path / "whole")))
    assert read_metrics(whole).filter(metric="val/ne/mean")["step"].to_list() == [5, 8]
    folder = train(replace(config, trainer=replace(settings, max_steps=3)))
    train(replace(load_config(folder), resume=True, trainer=settings))
    assert read_metrics(folder).filter(metric="val/ne/mean")["step"].to_list() == [3, 5, 8]
    assert_equal_states(folder, whole, LAST)


def test_a_finished_run_goes_on_as_if_it_had_not_ended(
    run_config: DV365RunConfig, tmp_path: Path
) -> None:
    """The learning rate stays constant, for its decay depends on the number of steps."""
    constant = replace(run_config.optim.schedule, final_fraction=1.0)
    config = replace(run_config, optim=replace(run_config.optim, schedule=constant))
    whole = train(replace(config, run_dir=str(tmp_path / "whole")))
    settings = replace(config.trainer, max_steps=6)
    folder = train(replace(config, trainer=settings))
    train(replace(load_config(folder), resume=True, trainer=config.trainer))
    validations = read_metrics(folder).filter(metric="val/ne/mean")
    assert validations["step"].to_list() == [4, 6, 8, 12]
    assert_equal_states(folder, whole, LAST)

    log = read_metrics(folder)
    train(replace(load_config(folder), resume=True, trainer=config.trainer))  # nothing is left
    assert_frame_equal(read_metrics(folder), log)
    assert_equal_states(folder, whole, LAST)


def test_without_a_binary_task_the_loss_chooses(tmp_path: Path) -> None:
    """A log of impressions with dwell times has no NE at all."""
    generator = np.random.default_rng(0)
    log = polars.DataFrame(
        {
            "user_id": generator.integers(0, 20, 600),
            "item_id": generator.integers(0, 30, 600),
            "timestamp": 1_700_000_000_000 + generator.integers(0, 10**9, 600),
            "dwell_time": generator.exponential(5, 600),
        }
    )
    log.write_parquet(tmp_path / "log.parquet")
    place = [f"data.path={tmp_path / 'log.parquet'}", f"data.out={tmp_path / 'prepared'}"]
    overrides = [
        *TINY_RUN[1:],
        "data=log",
        *place,
        f"run_dir={tmp_path / 'run'}",
        "encoder.heads=1",
    ]
    folder = train(compose("train", DV365RunConfig, overrides))
    losses = read_metrics(folder).filter(metric="val/loss").sort("value", "step")
    assert load_run(folder).checkpoint.step == losses["step"][0]
    assert "or lowest val/loss where that is not defined" in load_run(folder).checkpoint.chosen_by


def test_a_run_is_loaded_and_resumed_after_days_were_appended_to_its_data_set(
    tmp_path: Path,
) -> None:
    generator = np.random.default_rng(0)
    log = polars.DataFrame(
        {
            "user_id": generator.integers(0, 20, 600),
            "item_id": generator.integers(0, 30, 600),
            "timestamp": 1_700_000_000_000 + generator.integers(0, 10**9, 600),
            "action_type": generator.choice(["impression", "liked"], 600),
            "surface": "feed",
        }
    )
    log.write_parquet(tmp_path / "log.parquet")
    place = [f"data.path={tmp_path / 'log.parquet'}", f"data.out={tmp_path / 'prepared'}"]
    run_dir = f"run_dir={tmp_path / 'run'}"
    overrides = [*TINY_RUN[1:], "data=log", *place, run_dir, "encoder.heads=1"]
    config = compose("train", DV365RunConfig, overrides)
    folder = train(config)
    before_step = load_run(folder, "last").checkpoint.step
    before = DV365System().predict(load_run(folder), Split.CHOOSE)
    new = log.with_columns(
        polars.col("user_id", "item_id") + 15,
        polars.col("timestamp") + 10**9,
        surface=polars.lit("reels"),
    )
    polars.concat([log, new]).write_parquet(tmp_path / "log.parquet")
    manifest = append(AppendConfig(path=config.data.path, out=config.data.out)).manifest
    assert manifest.vocabulary_sizes["item"] > load_run(folder).manifest.vocabulary_sizes["item"]
    assert_frame_equal(DV365System().predict(load_run(folder), Split.CHOOSE), before)

    settings = replace(config.trainer, max_epochs=2, max_steps=-1)
    train(replace(load_config(folder), resume=True, trainer=settings))
    assert load_run(folder, "last").checkpoint.step > before_step


@pytest.mark.parametrize("setting", ["precision", "accelerator"])
def test_what_the_trainer_refuses_is_a_sentence(run_config: DV365RunConfig, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is 'nothing', it must be one of"):
        replace(run_config.trainer, **{setting: "nothing"})


def test_a_taken_run_folder_is_refused(run_config: DV365RunConfig) -> None:
    folder = Path(str(run_config.run_dir))
    folder.mkdir()
    (folder / "something").touch()
    with pytest.raises(ConfigError, match="is not empty; go on with that run by resume=true"):
        train(run_config)
    assert [path.name for path in folder.iterdir()] == ["something"]
    (folder / LOCK_FILE).touch()  # a run's: only under its lock can the folder be judged
    with pytest.raises(ConfigError, match="is not empty; go on with that run by resume=true"):
        train(run_config)


def test_a_run_folder_is_held_by_one_training_until_it_dies(
    run_config: DV365RunConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from recsys.runs.folder import held\n"
        "with held(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(100)\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"Another process is training in {folder}"):
            train(run_config)
        save(run_config, folder / CONFIG_FILE)
        with pytest.raises(ConfigError, match=f"Another process is training in {folder}"):
            train(replace(run_config, resume=True))
        process.kill()
    (folder / CONFIG_FILE).unlink()
    with held(folder):
        begin(folder, run_config, open_or_prepare(run_config.data)[0].manifest)
    assert (folder / CONFIG_FILE).is_file()


def test_more_than_one_device_needs_a_strategy(run_config: DV365RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices=2 .* choose strategy=torchrec"):
        replace(run_config, trainer=replace(run_config.trainer, devices=2))


def test_other_nodes_need_a_launcher(run_config: DV365RunConfig) -> None:
    settings = replace(run_config.trainer, num_nodes=2)
    strategy = replace(run_config.strategy, name="torchrec")
    with pytest.raises(ConfigError, match="start the run by torchrun or SLURM"):
        train(replace(run_config, trainer=settings, strategy=strategy))


def test_a_killed_run_resumes_exactly(
    finished: tuple[DV365RunConfig, Path], tmp_path: Path
) -> None:
    config, whole = finished
    killed = tmp_path / "killed"
    _train_and_kill(replace(config, run_dir=str(killed)), tmp_path, after=5)
    assert torch.load(killed / CHECKPOINTS / LAST, weights_only=True)["global_step"] < 12

    train(replace(load_config(killed), resume=True))

    assert_equal_runs(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut_at", "saved_at"),
    [(5, 4), (6, 6), (8, 8), (10, 9)],
    ids=["after a validation", "mid-epoch", "end of an epoch", "second epoch"],
)
def test_a_run_cut_anywhere_resumes_exactly(
    run_config: DV365RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut_at: int,
    saved_at: int,
) -> None:
    """Two epochs of 8 batches, validated every 4 steps, saved every 3 and after validations."""
    trainer = replace(run_config.trainer, max_epochs=2, max_steps=-1)
    config = replace(run_config, trainer=trainer)
    config = replace(config, loader=replace(config.loader, batch_requests=_requests_for(config, 8)))
    whole = train(replace(config, run_dir=str(tmp_path / "whole")))
    cut = tmp_path / "cut"
    step = DV365.training_step

    def step_or_fail(model: DV365, batch: RequestBatch, index: int) -> torch.Tensor:
        if model.trainer.global_step == cut_at:
            raise RuntimeError("power failure")
        return step(model, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(DV365, "training_step", step_or_fail)
        with pytest.raises(RuntimeError, match="power failure"):
            train(replace(config, run_dir=str(cut)))
    assert torch.load(cut / CHECKPOINTS / LAST, weights_only=True)["global_step"] == saved_at

    train(replace(load_config(cut), resume=True))

    assert_equal_runs(cut, whole)


def test_resuming_without_a_run_folder_is_refused(run_config: DV365RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"resume=true needs run_dir="):
        train(replace(run_config, run_dir=None, resume=True))


def _requests_for(config: DV365RunConfig, batches: int) -> int:
    """Requests per batch that make an epoch of ``batches`` batches."""
    dataset, _ = open_or_prepare(config.data)
    return -(-len(dataset.requests("fit")) // batches)


def _train_and_kill(config: DV365RunConfig, tmp_path: Path, after: int) -> None:
    """Train in a process of its own and kill it once a checkpoint and ``after`` steps are there."""
    save(config, tmp_path / CONFIG_FILE)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from recsys.systems.dv365.module import DV365\n"
        "from recsys.core.composition import load\n"
        "from recsys.systems.dv365.system import DV365RunConfig\n"
        "from recsys.systems.runs import train\n"
        "step = DV365.training_step\n"
        "DV365.training_step = lambda *given: (time.sleep(0.3), step(*given))[1]\n"
        "train(load(Path(sys.argv[1]), DV365RunConfig))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / CONFIG_FILE)])
    try:
        log = Path(str(config.run_dir)) / "metrics.csv"
        deadline = time.monotonic() + 100
        while not (log.exists() and f"\n{after},0,train/loss" in log.read_text()):
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline, "the run did not come this far"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_wandb_keeps_numbers_and_configuration_in_the_run_folder(
    run_config: DV365RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)  # offline is our own default
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("sys.argv", ["recsys", "train", "given_token=geheim"])
    run_dir = train(replace(run_config, logger=LoggerConfig(wandb=True)))
    wandb.finish()
    [file] = run_dir.glob("wandb/offline-run-*/*.wandb")
    wanted = (b"train/loss", b"val/ne/mean", b"batch_requests")
    deadline = time.monotonic() + 60  # wandb's own process writes the file when it gets to it
    while not all(word in file.read_bytes() for word in wanted):
        assert time.monotonic() < deadline, "wandb wrote no numbers within a minute"
        time.sleep(0.1)
    assert not read_metrics(run_dir).is_empty()

    train(replace(load_config(run_dir), resume=True))
    wandb.finish()
    files = list(run_dir.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert {file.name for file in files} == {f"run-{(run_dir / WANDB_FILE).read_text()}.wandb"}
    for path in run_dir.rglob("*"):  # of the command line
        assert not path.is_file() or b"geheim" not in path.read_bytes(), path
