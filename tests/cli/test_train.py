"""`recsys train`: what a resumed run is configured by."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.cli.train import configure
from recsys.core.composition import compose, save
from recsys.core.errors import ConfigError
from recsys.runs.files import CONFIG_FILE
from recsys.systems.choice import compose_run
from recsys.systems.dv365.system import DV365RunConfig


@pytest.mark.parametrize("choice", ["experiment=demo", "trainer=debug"])
def test_a_resumed_run_takes_its_configuration_from_its_folder(tmp_path: Path, choice: str) -> None:
    config = compose("train", DV365RunConfig, ["experiment=demo", "seed=7"])
    save(config, tmp_path / CONFIG_FILE)
    resume = [f"run_dir={tmp_path}", "resume=true"]
    sentence = f"`{choice}` .* takes its configuration from {tmp_path / CONFIG_FILE}"
    with pytest.raises(ConfigError, match=sentence):
        configure([choice, *resume])
    resumed = configure([*resume, "system=dv365", "trainer.max_epochs=3"])
    assert (resumed.seed, resumed.trainer.max_epochs) == (7, 3)


def test_a_resumed_run_is_known_before_anything_is_composed(tmp_path: Path) -> None:
    """Settings that only its own system, or its own strategy, allows are no errors."""
    nxtpost = compose_run(["experiment=nxtpost_simulated", "strategy=torchrec"])
    save(nxtpost, tmp_path / CONFIG_FILE)
    settings = ["resume=True", "trainer.devices=2", "model.tower.heads=1", f"run_dir={tmp_path}"]
    resumed = configure(settings)
    assert (resumed.system, resumed.num_processes) == ("nxtpost", 2)
