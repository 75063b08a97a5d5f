"""What a run that goes on may find, and may change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import ArtifactError, ConfigError
from recsys.training.checkpoints import FOLDER
from recsys.training.load import load_config
from recsys.training.metrics_log import FILE_NAME, HEADER, MetricsCsv, read_metrics
from recsys.training.run import train
from recsys.training.run_folder import held
from recsys.training.systems.dv365 import DV365RunConfig


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
    names = r"optim\.dense\.learning_rate, optim\.slice_tables\.optimizer"
    with pytest.raises(ConfigError, match=rf"but {names} differ.*warm_start\.checkpoint="):
        train(other)
    wider = replace(begun, model=replace(begun.model, dimension=16))
    with pytest.raises(ArtifactError, match=r"is of size \[\d+, 8\], the model's of \[\d+, 16\]"):
        train(wider)
    # what is no state may change; and a log that a kill has left empty is none
    (folder / FILE_NAME).write_text("")
    trainer = replace(begun.trainer, max_steps=4, gradient_clip=0.5)
    loader = replace(begun.loader, batch_requests=8)
    train(replace(begun, trainer=trainer, loader=loader))
    assert set(read_metrics(folder)["step"]) == {4}
    assert (folder / FOLDER / "step-00000004.ckpt").exists()


def test_a_log_whose_header_was_cut_is_empty(tmp_path: Path) -> None:
    for cut in ("", ",".join(HEADER)[:9]):
        (tmp_path / FILE_NAME).write_text(cut)
        assert read_metrics(tmp_path).is_empty()
    log = MetricsCsv(tmp_path)
    log.drop_after(0)
    log.log_metrics({"loss": 0.5}, step=0)
    assert read_metrics(tmp_path).rows() == [(1, 0, "loss", 0.5)]


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
