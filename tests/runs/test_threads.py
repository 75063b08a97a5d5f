"""A resumed run takes the threads it began with, unless the user says how many."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys.core.environment import write_environment
from recsys.core.threads import THREADS
from recsys.runs.train import _use_threads_of


def test_threads_of_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        write_environment(tmp_path)
        torch.set_num_threads(1)
        monkeypatch.setenv(THREADS, "1")
        _use_threads_of(tmp_path)
        assert torch.get_num_threads() == 1
        monkeypatch.delenv(THREADS)
        _use_threads_of(tmp_path / "begun_elsewhere")
        assert torch.get_num_threads() == 1
        _use_threads_of(tmp_path)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
