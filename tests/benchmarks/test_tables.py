"""Tables are built in place: at no moment does a process hold more than they take."""

from __future__ import annotations

import pytest

from recsys.cli import bench

tables = bench._load("tables")
ROWS = 100_000
#: Five tables of 32 numbers a row, and one of row-wise Adagrad.
BYTES = ROWS * 5 * (32 + 1) * 4
SMALL = tables.Config(rows=[ROWS], rounds=1)


def test_the_peak_is_what_the_tables_take() -> None:
    figures = tables.measured(tables.IN_PLACE, ROWS, SMALL)
    assert figures["bytes"] == pytest.approx(BYTES, rel=0.05)
    assert figures["peak_bytes"] <= tables.AIM_PEAK * BYTES


@pytest.mark.slow  # two processes more
def test_every_figure_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    figures = tables.run(SMALL)
    peer = figures["ways"][tables.PEER][str(ROWS)]
    assert peer["bytes"] == pytest.approx(BYTES, rel=0.05)
    assert peer["peak_bytes"] > 1.8 * BYTES  # what is avoided
    assert peer["cpu_seconds"] > 0
    assert "in place" in capsys.readouterr().out
