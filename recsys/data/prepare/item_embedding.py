"""The embeddings of items that a source gives, written beside the features, in a file apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.durable import replaced_file
from recsys.core.errors import DataError
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS
from recsys.data.contract.ids import as_ids
from recsys.data.contract.parquet import open_parquet, parquet_writer
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import ITEM_EMBEDDING_FILE
from recsys.data.stores.vocabulary import RAW, Vocabulary

_EMBEDDING = "embedding"
_PLACE = "place"


def write_embeddings(
    folder: Path,
    chunks: Iterable[pl.DataFrame],
    vocabulary: Vocabulary,
    former_first: bool = False,
) -> int | None:
    """Write the embeddings of the log's items, by raw id: the first of each, piece by piece.

    What was written there before stays for items that are not among them.

    Args:
        folder: of the features.
        chunks: ``item_id`` and ``embedding``, lists of float32 of one width.
        vocabulary: of the items.
        former_first: what was written before stays for all items that it has.

    Returns:
        How many items have one; None where nothing is or was given.

    Raises:
        DataError: they have another width than those written before, or none is of the log.
    """
    path = folder / ITEM_EMBEDDING_FILE
    given = (chunk for chunk in chunks if not chunk.is_empty())
    pieces = chain(_former(path), given) if former_first else chain(given, _former(path))
    first = next(pieces, None)
    if first is None:
        return None
    width = len(first[_EMBEDDING][0])
    ids = vocabulary.table.schema[RAW]
    typed = pl.Schema({Column.ITEM: ids, _EMBEDDING: pl.Array(pl.Float32(), width)})
    schema = pl.DataFrame(schema=typed).to_arrow().schema
    written = np.zeros(vocabulary.table.height, bool)
    with (
        replaced_file(path) as partial,
        parquet_writer(partial, schema, compression="zstd") as writer,
    ):
        for piece in chain([first], pieces):
            if (found := len(piece[_EMBEDDING][0])) != width:
                raise DataError(
                    f"the embeddings of items have width {width}, the data set has others of width "
                    f"{found}; give embeddings of one model, or prepare the whole log again with "
                    "overwrite=true."
                )
            kept = _first_of_log(piece, vocabulary, written)
            writer.write_table(kept.cast(typed).to_arrow().cast(schema))
    if not written.any():
        raise DataError(
            f"none of the items with an embedding (such as {first[Column.ITEM][0]!r}) is in the "
            f"log (which has {vocabulary.table[RAW][0]!r}); ids are matched as they are written."
        )
    return int(written.sum())


def _former(path: Path) -> Iterator[pl.DataFrame]:
    """The rows of the file, where it is there."""
    if path.is_file():
        with open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=DEFAULT_CHUNK_ROWS):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame


def _first_of_log(
    rows: pl.DataFrame, vocabulary: Vocabulary, written: NDArray[np.bool_]
) -> pl.DataFrame:
    """The rows of items of the log that are not ``written``, marked there; ids as the log's are."""
    ids = as_ids(rows[Column.ITEM], vocabulary.table.schema[RAW])
    place = pl.DataFrame(
        {RAW: vocabulary.table[RAW], _PLACE: pl.int_range(vocabulary.table.height, eager=True)}
    )
    rows = rows.with_columns(ids).join(
        place, left_on=Column.ITEM, right_on=RAW, how="inner", maintain_order="left"
    )
    rows = rows.unique(_PLACE, keep="first", maintain_order=True)
    places = rows[_PLACE].to_numpy()
    rows = rows.filter(pl.Series(~written[places]))
    written[places] = True
    return rows.drop(_PLACE)
