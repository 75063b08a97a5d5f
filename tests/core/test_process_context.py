"""How processes are started."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from recsys.core.process_context import process_context


@pytest.mark.parametrize(("cuda", "method"), [("13.0", "spawn"), (None, "forkserver")])
def test_nothing_is_forked_that_may_have_looked_at_gpus(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, method: str
) -> None:
    torch = SimpleNamespace(version=SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert process_context("json").get_start_method() == method
