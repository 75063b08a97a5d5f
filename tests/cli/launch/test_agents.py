"""`launchers/slurm/agents`: the script of an array of wandb agents."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from recsys.cli.launch.agents import app
from recsys.cli.main import invoke

SWEEP = "team/recsys/ab12"


def test_a_dry_run_prints_the_script(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [SWEEP, "--agents", "3", "--trials", "5", "nodes=2", "at_once=2", "--dry-run"]
    assert invoke(words, app) == 0
    script = capsys.readouterr().out
    path = tmp_path / "agents.sh"
    path.write_text(script)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert "#SBATCH --array=0-2%2\n" in script and "#SBATCH --nodes=2\n" in script
    assert "wandb agent --count 5 team/recsys/ab12\n" in script
    # after the settings of the sweep file, whose run_dir is for agents without a cluster
    assert '"$@" "run_dir=$run_dir"' in script
    assert "run_dir=runs/sweeps/ab12/$WANDB_RUN_ID\n" in script


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--agents", "0"], "Invalid value for '--agents'"),
        (["launcher.node=2"], "launcher.node"),
        (["seed=3"], "seed"),
    ],
)
def test_mistakes_are_sentences(
    capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert invoke([SWEEP, *words, "--dry-run"], app) == 2
    assert sentence in capsys.readouterr().err
