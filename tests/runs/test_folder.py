"""What a run that goes on may find, and may change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys.core.composition import save
from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.data.loaders.requests import LoaderConfig
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.runs.checkpoints import CHECKPOINTS, LAST
from recsys.runs.files import CONFIG_FILE
from recsys.runs.folder import held
from recsys.runs.metrics_log import HEADER, METRICS_LOG, MetricsCsv, read_metrics
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.runs import load_config, train
from tests.room import room


@pytest.fixture
def begun(run_config: DV365RunConfig) -> DV365RunConfig:
    """The configuration by which a run of three steps goes on."""
    settings = replace(run_config.trainer, max_steps=3)
    folder = train(replace(run_config, trainer=settings))
    kept: Any = load_config(folder)
    return replace(kept, resume=True)


def test_a_run_goes_on_only_with_what_its_checkpoint_has_the_state_of(
    begun: DV365RunConfig,
) -> None:
    folder = Path(str(begun.run_dir))
    dense = replace(begun.optim.dense, learning_rate=0.5)
    tables = replace(begun.optim.slice_tables, optimizer="sgd")
    other = replace(begun, optim=replace(begun.optim, dense=dense, slice_tables=tables))
    names = r"another optim\.dense\.learning_rate and another optim\.slice_tables\.optimizer"
    with pytest.raises(ConfigError, match=rf"has {names};.*warm_start\.checkpoint="):
        train(other)
    wider = replace(begun, model=replace(begun.model, dimension=16))
    with pytest.raises(ArtifactError, match=r"is of size \[\d+, 8\], the model's of \[\d+, 16\]"):
        train(wider)
    # what is no state may change; and a log that a kill has left empty is none
    (folder / METRICS_LOG).write_text("")
    trainer = replace(begun.trainer, max_steps=4, gradient_clip=0.5)
    loader = replace(begun.loader, batch_requests=8)
    train(replace(begun, trainer=trainer, loader=loader))
    assert set(read_metrics(folder)["step"]) == {4}
    assert (folder / CHECKPOINTS / "step-00000004.ckpt").exists()


@pytest.mark.parametrize(("batches", "last_step"), [(4, 2 + 3), (16, 2 + 12)])
def test_the_rest_of_an_epoch_is_trained_on_with_batches_of_another_size(
    run_config: DV365RunConfig, batches: int, last_step: int
) -> None:
    """Two of 8 batches are a quarter of the epoch, which is 1 of 4 and 4 of 16."""
    requests = len(open_or_prepare(run_config.data)[0].requests("fit"))

    def loader(count: int) -> LoaderConfig:
        return replace(run_config.loader, batch_requests=-(-requests // count))

    trainer = replace(run_config.trainer, max_steps=2, validate_every_n_steps=None)
    folder = train(replace(run_config, trainer=trainer, loader=loader(8)))
    trainer = replace(trainer, max_steps=-1)
    train(replace(run_config, trainer=trainer, loader=loader(batches), resume=True))
    assert open_checkpoint(folder / CHECKPOINTS / LAST).step == last_step
    assert read_metrics(folder)["step"].max() == last_step


def test_a_log_whose_header_was_cut_is_empty(tmp_path: Path) -> None:
    for cut in ("", ",".join(HEADER)[:9]):
        (tmp_path / METRICS_LOG).write_text(cut)
        assert read_metrics(tmp_path).is_empty()
    (tmp_path / METRICS_LOG).write_bytes(b"\xff\n")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_metrics(tmp_path)
    (tmp_path / METRICS_LOG).write_text("")
    log = MetricsCsv(tmp_path)
    log.drop_after(0)
    log.log_metrics({"loss": 0.5}, step=0)
    assert read_metrics(tmp_path).rows() == [(1, 0, "loss", 0.5)]


def test_a_full_disk_leaves_no_half_of_a_configuration(
    run_config: DV365RunConfig, tmp_path: Path
) -> None:
    with room(256), pytest.raises(RecsysError, match="could not be written: File too large"):
        save(run_config, tmp_path / CONFIG_FILE)
    assert not (tmp_path / CONFIG_FILE).exists()


def test_a_folder_that_cannot_be_written_to_is_named(
    run_config: DV365RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"file/run cannot be written to \(Not a directory\)"),
        held(tmp_path / "file" / "run"),
    ):
        pass
    with pytest.raises(ConfigError, match=r"/file cannot be written to \(File exists\)"):
        train(replace(run_config, run_dir=str(tmp_path / "file")))
