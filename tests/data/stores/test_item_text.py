"""Texts of items: what is kept, and what an append changes."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.stores.item_text import ITEM_TEXT_FILE, read_item_text, write_item_text


def frame(*rows: tuple[int, str | None, str | None]) -> pl.DataFrame:
    schema = {"index": pl.Int32, "title": pl.String, "genres": pl.String}
    return pl.DataFrame(rows, schema, orient="row")


def test_items_without_any_text_are_left_out_and_shared_indices_keep_the_first(tmp_path: Path):
    write_item_text(
        tmp_path, frame((3, "c", None), (1, None, None), (2, None, "x"), (3, "other", "y"))
    )
    assert read_item_text(tmp_path / ITEM_TEXT_FILE).equals(frame((2, None, "x"), (3, "c", None)))


def test_an_append_keeps_what_it_says_nothing_about_and_the_linked_file(tmp_path: Path):
    write_item_text(tmp_path, frame((1, "a", "x"), (2, "b", "y")))
    path, link = tmp_path / ITEM_TEXT_FILE, tmp_path / "link.parquet"
    link.hardlink_to(path)
    write_item_text(tmp_path, frame((1, None, None), (2, "new", None), (3, "c", None)))
    assert read_item_text(path).equals(frame((1, "a", "x"), (2, "new", "y"), (3, "c", None)))
    assert read_item_text(link).equals(frame((1, "a", "x"), (2, "b", "y")))


def test_no_file_is_no_texts_and_a_damaged_one_a_sentence(tmp_path: Path):
    path = tmp_path / ITEM_TEXT_FILE
    assert read_item_text(path).is_empty()
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"damaged.*recsys data prepare"):
        read_item_text(path)
