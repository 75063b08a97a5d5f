"""A trace of some steps in the run folder, and what is said about it."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.runs import train


def test_a_trace_holds_the_steps_that_were_asked_for(
    run_config: DV365RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = replace(run_config.trainer, max_steps=6, profile_after=2, profile_steps=3)
    run_dir = train(replace(run_config, trainer=trainer))
    folder = run_dir / "profile"
    assert sorted(path.name for path in folder.iterdir()) == [
        "after-2-rank-0.json.gz",
        "after-2-rank-0.txt",
    ]
    said = capsys.readouterr().err
    assert f"Trace of 3 batches: {folder / 'after-2-rank-0.json.gz'}; open it at" in said
    events = json.loads(gzip.decompress((folder / "after-2-rank-0.json.gz").read_bytes()))
    names = [event.get("name", "") for event in events["traceEvents"]]
    assert names.count("Optimizer.step#AdamW.step") == 3
    assert "aten::addmm" in (folder / "after-2-rank-0.txt").read_text()


def test_a_training_that_ends_before_says_so(
    run_config: DV365RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = replace(run_config.trainer, max_steps=2, profile_steps=3)
    run_dir = train(replace(run_config, trainer=trainer))
    assert not (run_dir / "profile").exists()
    said = capsys.readouterr().err
    assert (
        "No trace: the training has ended after 2 batches, of which trainer.profile_after=5" in said
    )
