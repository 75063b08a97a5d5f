"""What a training says of items and rows that it cannot use."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.data.content.item_embeddings import EmbeddingReport
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.prepare.prepare import PrepareConfig
from recsys.systems.nxtpost.items import say_what_is_left_out


def _printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_items_without_an_embedding_are_counted_by_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = EmbeddingReport(
        items=1_200,
        known=1_190,
        without_embedding=7,
        not_finite=3,
        zero_norm=0,
        duplicates=2,
        not_in_log=5,
    )
    say_what_is_left_out(report)
    assert _printed(capsys) == (
        "Items without an embedding: 10 of 1,200 (not in the file: 7, with NaN or infinity: 3); "
        "engagements with them are skipped. Embeddings of an item that was given before: 2; the "
        "first counts."
    )
    say_what_is_left_out(EmbeddingReport(3, 3, 0, 0, 0, 0, 8))
    assert _printed(capsys) == ""


def test_rows_left_out_when_a_training_prepares_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.parquet"
    moments = [1_600_000_000_000 + hour * 3_600_000 for hour in range(40)]
    users: list[int | None] = [None, None, *range(2, 40)]
    columns = {"user_id": users, "item_id": range(40), "timestamp": moments}
    pl.DataFrame(columns).with_columns(action_type=pl.lit("click")).write_parquet(log)
    config = PrepareConfig(source="log", path=str(log), out=str(tmp_path / "prepared"))
    open_or_prepare(config)
    assert "Rows left out (user_id is null: 2); they are in" in _printed(capsys)
    open_or_prepare(config)
    assert "Rows left out" not in _printed(capsys)
