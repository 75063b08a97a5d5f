"""Texts of items (titles and the like) by item index."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.core.durable import replaced_file
from recsys.data.contract.parquet import write_frame
from recsys.data.stores.indexed_table import read_indexed
from recsys.data.stores.vocabulary import INDEX

ITEM_TEXT_FILE = "item_text.parquet"


def write_item_text(folder: Path, texts: pl.DataFrame, former_first: bool = False) -> None:
    """Write the texts of items; what was written there before stays where nothing new is known.

    Args:
        folder: the features of a data set that is being written.
        texts: ``index`` and one text column per kind of text; of several items that share a
            hashed index the first one's are kept.
        former_first: what was written there before stays wherever it says something.
    """
    path = folder / ITEM_TEXT_FILE
    names = [name for name in texts.columns if name != INDEX]
    texts = texts.with_columns(pl.col(names).cast(pl.String)).unique(
        INDEX, keep="first", maintain_order=True
    )
    if path.is_file():
        former = read_item_text(path)
        order = slice(None, None, -1 if former_first else 1)
        texts = texts.join(former, on=INDEX, how="left", suffix="_former").select(
            INDEX, *(pl.coalesce([name, f"{name}_former"][order]).alias(name) for name in names)
        )
    texts = texts.filter(pl.any_horizontal(pl.col(names).is_not_null())).sort(INDEX)
    with replaced_file(path) as partial:
        write_frame(partial, texts)


def read_item_text(path: Path) -> pl.DataFrame:
    """``index`` and the text columns, null where unknown; empty where there is no file.

    Raises:
        DataError: the file is damaged.
    """
    return read_indexed(path)
