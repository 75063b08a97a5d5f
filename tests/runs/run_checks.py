"""What tests of runs compare."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from polars.testing import assert_frame_equal

from recsys.runs.checkpoints import BEST, CHECKPOINTS, LAST
from recsys.runs.metrics_log import read_metrics


def assert_equal_runs(resumed: Path, whole: Path) -> None:
    """Every logged number, both checkpoints and the metrics are the same."""
    assert_frame_equal(read_metrics(resumed), read_metrics(whole), check_exact=True)
    for name in (BEST, LAST):
        assert_equal_states(resumed, whole, name)
    both = [json.loads((folder / "metrics.json").read_text()) for folder in (whole, resumed)]
    assert both[0] == both[1]


def assert_equal_states(resumed: Path, whole: Path, checkpoint: str) -> None:
    """The checkpoint was taken at the same step, with the same weights."""
    expected = torch.load(whole / CHECKPOINTS / checkpoint, weights_only=True)
    found = torch.load(resumed / CHECKPOINTS / checkpoint, weights_only=True)
    assert found["global_step"] == expected["global_step"]
    for key, tensor in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][key], tensor, rtol=0, atol=0)
