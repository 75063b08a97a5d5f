"""Days that come twice, late, empty, or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.recurring.cycle import run_cycle
from recsys.recurring.generations import SERVED, TRAINED, Generations
from tests.recurring.days import DAY, FIRST_DAYS, configured


@pytest.mark.slow  # two cycles
def test_days_that_are_no_new_ones_make_no_generation(days: Path, tmp_path: Path) -> None:
    config = configured(days, tmp_path)
    (first,) = run_cycle(config)
    generations = Generations(Path(config.folder))
    began, ended = (first.generation.done[TRAINED][key] for key in ("report_from", "report_until"))

    late = pl.read_parquet(days / "first.parquet").head(50)
    late.with_columns(item_id=pl.lit(777_777)).write_parquet(tmp_path / "late.parquet")
    for file in (days / "first.parquet", tmp_path / "late.parquet"):
        (outcome,) = run_cycle(replace(config, path=str(file)))
        assert outcome.generation is None

    come = tmp_path / "come"
    come.mkdir()
    shutil.copy(days / "first.parquet", come)
    late.clear().write_parquet(come / "empty.parquet")
    with pytest.raises(DataError, match=r"empty\.parquet holds no rows"):
        run_cycle(replace(config, path=str(come / "empty.parquet")))
    # a day is missing, so that no day to choose on lies before the newest one
    shutil.copy(days / f"{FIRST_DAYS + 1}.parquet", come)
    with pytest.raises(DataError, match=r"the choose period .* has no request rows"):
        run_cycle(replace(config, path=str(come)))
    assert [one.number for one in generations.all()] == [1]

    # it comes after all, and both are in the next generation; an empty file is no hindrance
    shutil.copy(days / f"{FIRST_DAYS}.parquet", come)
    (second,) = run_cycle(replace(config, path=str(come)))
    assert (second.generation.number, second.generation.state) == (2, SERVED)
    assert second.generation.done[TRAINED]["report_from"] == began + 2 * DAY
    assert second.generation.done[TRAINED]["report_until"] > ended + DAY
