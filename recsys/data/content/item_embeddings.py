"""Embeddings of items given from outside: read, checked, and aligned to item indices.

Legend: V item indices, N rows of the file, W width of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.durable import replaced_file
from recsys.core.errors import DataError, RecsysError
from recsys.data.content.usable_rows import NOT_FINITE, ZERO_NORM, usable_rows
from recsys.data.contract.files import refuse_repeated
from recsys.data.contract.ids import checked_ids
from recsys.data.contract.parquet import open_parquet, write_parquet
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import FEATURES, ITEM_EMBEDDING_FILE
from recsys.data.stores.vocabulary import RAW, Vocabulary

#: What a folder of embeddings holds: the post tower and the simulator write it.
ITEM_EMBEDDINGS_FILE = "post_embeddings.parquet"
#: The folder of an artifact in that of its run.
_ARTIFACT = "artifact"
EMBEDDING = "embedding"

_ID_SUFFIX = "_id"
_NEEDED = f"one id column (`item_id`, or another that ends with `{_ID_SUFFIX}`) and `{EMBEDDING}`"


@dataclass(frozen=True)
class EmbeddingReport:
    """What became of the items of a log and of the rows of a file.

    Attributes:
        items: items of the log.
        known: of them those that have an embedding.
        without_embedding: of them those the file has no embedding for.
        not_finite: of them those whose embedding has NaN or infinite numbers.
        zero_norm: of them those whose embedding has no direction.
        duplicates: rows of the file left out since their id came before.
        not_in_log: rows of the file left out since the log does not have their item.
    """

    items: int
    known: int
    without_embedding: int
    not_finite: int
    zero_norm: int
    duplicates: int
    not_in_log: int


@dataclass(frozen=True, eq=False)
class ItemEmbeddings:
    """One embedding per item index.

    Attributes:
        matrix: [V, W] float32, rows of length 1; zeros where there is none, as for index 0.
        known: [V] bool, whether the item has an embedding.
        report: counts of what was left out, and why.
    """

    matrix: NDArray[np.float32]
    known: NDArray[np.bool_]
    report: EmbeddingReport

    @property
    def width(self) -> int:
        """W."""
        return self.matrix.shape[1]

    @classmethod
    def load(cls, path: Path | str, vocabulary: Vocabulary, width: int | None = None) -> Self:
        """Read the embeddings of a log's items.

        Args:
            path: an ``.npz`` file or a Parquet file with one id column, whose name ends with
                ``_id``, and ``embedding`` ([N, W], or lists of W numbers); or a folder with a
                ``post_embeddings.parquet``.
            vocabulary: of the log's items. Of items that share a hashed index the last one's
                embedding is taken.
            width: what W must be; None for any.

        Raises:
            DataError: the file is missing, damaged or of another layout or width, or none of its
                ids is in the log.
        """
        file = embeddings_file(path)
        ids, embeddings = read_embeddings(file)
        if width is not None and embeddings.shape[1] != width:
            raise DataError(
                f"{file} has embeddings of width {embeddings.shape[1]}, expected {width}; give "
                "the file the model was trained with, or train a model on this one."
            )
        first = ids.is_first_distinct()
        index = indices_in_log(file, ids, vocabulary)
        in_log = index > 0
        of_log = ids.filter(in_log)
        reason, vectors = usable_rows(of_log, embeddings[in_log.to_numpy()])
        usable = reason == ""
        taken = index.filter(in_log).filter(usable).to_numpy()
        matrix = np.zeros((vocabulary.size, embeddings.shape[1]), np.float32)
        matrix[taken] = vectors
        known = np.zeros(vocabulary.size, bool)
        known[taken] = True
        # an item without a row that can be used is counted by the first of its rows
        has_usable = of_log.is_in(of_log.filter(usable).implode())
        lost = reason.filter(of_log.is_first_distinct() & ~has_usable)
        items = vocabulary.table.height
        report = EmbeddingReport(
            items=items,
            known=len(taken),
            without_embedding=items - int((first & in_log).sum()),
            not_finite=int((lost == NOT_FINITE).sum()),
            zero_norm=int((lost == ZERO_NORM).sum()),
            duplicates=int((~first).sum()),
            not_in_log=int((first & ~in_log).sum()),
        )
        return cls(matrix, known, report)


def indices_in_log(file: Path, ids: pl.Series, vocabulary: Vocabulary) -> pl.Series:
    """[N] the item index of each id of a file, 0 where the log does not have it.

    Args:
        file: for the sentence.
        ids: as ``read_embeddings`` gives them.
        vocabulary: of the log's items.

    Raises:
        DataError: the log has none of them.
    """
    index = vocabulary.indices(ids)
    if not (index > 0).any():
        raise DataError(
            f"none of the {len(ids)} ids of {file} (such as {ids[0]!r}) is an item of the log "
            f"(such as {_example(vocabulary)!r}); give the embeddings of this log's items, their "
            "ids written as there."
        )
    return index


def item_rows(file: Path, vocabulary: Vocabulary, width: int) -> NDArray[np.float32]:
    """[V, W] the rows of a file by item index, as they stand there; zeros where there is none.

    Raises:
        DataError: the file is damaged or of another width, or none of its ids is in the log.
    """
    ids, embeddings = read_embeddings(file)
    if embeddings.shape[1] != width:
        raise DataError(
            f"{file} has embeddings of width {embeddings.shape[1]}, expected {width}; give the "
            "file that belongs to the artifact."
        )
    index = indices_in_log(file, ids, vocabulary).to_numpy()
    matrix = np.zeros((vocabulary.size, width), np.float32)
    matrix[index] = embeddings
    matrix[0] = 0
    return matrix


def write_item_embeddings(
    path: Path, ids: pl.Series | NDArray, embeddings: NDArray[np.floating]
) -> None:
    """Write embeddings as Parquet, in one step: ``item_id`` and ``embedding``.

    Args:
        path: file to write.
        ids: [N] raw ids, as in the log.
        embeddings: [N, W], written in their own type.
    """
    count, width = embeddings.shape
    flat = pa.array(np.ascontiguousarray(embeddings).reshape(-1))
    table = pa.table(
        {
            Column.ITEM: pl.Series(ids).to_arrow(),
            EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, width),
        }
    )
    assert table.num_rows == count
    with replaced_file(path) as partial:
        write_parquet(partial, table, compression="zstd")


def embeddings_file(path: Path | str) -> Path:
    """The file behind a path: the file itself, or the one that a folder holds.

    A prepared data set holds the embeddings that came with its items, a run's artifact those that
    the model has learned.
    """
    folder = Path(path)
    inside = (
        folder / FEATURES / ITEM_EMBEDDING_FILE,
        folder / ITEM_EMBEDDINGS_FILE,
        folder / _ARTIFACT / ITEM_EMBEDDINGS_FILE,
    )
    if not folder.is_dir():
        return folder
    return next((file for file in inside if file.is_file()), folder / ITEM_EMBEDDINGS_FILE)


def read_embeddings(path: Path) -> tuple[pl.Series, NDArray]:
    """Ids [N], numbers of 64 bits or text, and embeddings [N, W] of a file, as they stand in it.

    Raises:
        DataError: the file is missing, damaged or of another layout.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is missing; give an .npz or Parquet file of item embeddings, or a folder "
            f"with a {ITEM_EMBEDDINGS_FILE}."
        )
    try:
        ids, embeddings = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    except RecsysError:
        raise
    except Exception as error:  # zipfile, zlib and numpy have a dozen ways to say "damaged"
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path} is no readable .npz or Parquet file ({reason}); write it again."
        ) from error
    if embeddings.ndim != 2 or len(ids) != len(embeddings) or not embeddings.size:
        raise DataError(
            f"{path} holds {len(ids)} ids and embeddings of shape {embeddings.shape}; expected "
            "one row of numbers per id."
        )
    if not (np.issubdtype(embeddings.dtype, np.floating) or embeddings.dtype.kind in "iu"):
        raise DataError(f"{path}, {EMBEDDING}: expected numbers, found {embeddings.dtype}.")
    return _checked_ids(path, ids), embeddings


def _checked_ids(path: Path, ids: pl.Series) -> pl.Series:
    ids = checked_ids(str(path), ids)
    if ids.null_count():
        raise DataError(
            f"{path} has {ids.null_count()} rows without an id; give each its item's id, or leave "
            "it out."
        )
    return ids


def _read_npz(path: Path) -> tuple[pl.Series, NDArray]:
    with np.load(path) as arrays:
        id_name = _id_name(path, list(arrays))
        return pl.Series(id_name, arrays[id_name]), arrays[EMBEDDING]


def _read_parquet(path: Path) -> tuple[pl.Series, NDArray]:
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        id_name = _id_name(path, names)
        refuse_repeated(path, names, (id_name, EMBEDDING))
        table = file.read([id_name, EMBEDDING])
    kind = table.schema.field(EMBEDDING).type
    is_lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(kind) for is_kind in is_lists):
        raise DataError(f"{path}, {EMBEDDING}: expected lists of numbers, found {kind}.")
    table = table.filter(pc.is_valid(table[EMBEDDING]))  # null: no embedding
    lengths = pc.list_value_length(table[EMBEDDING]).to_numpy()
    if not len(lengths):
        raise DataError(f"{path} holds no embedding; write it again.")
    other = np.flatnonzero(lengths != lengths[0])
    if len(other):
        raise DataError(
            f"{path}, row {other[0]}: an embedding of width {lengths[other[0]]} among those of "
            f"width {lengths[0]}; all must have the same."
        )
    values = pc.list_flatten(table[EMBEDDING]).to_numpy()
    ids = pl.from_arrow(table[id_name])
    assert isinstance(ids, pl.Series)
    return ids, values.reshape(len(lengths), -1)


def _id_name(path: Path, names: list[str]) -> str:
    """The name of the ids; ``item_id`` where several could be meant."""
    ids = [name for name in names if name.endswith(_ID_SUFFIX)]
    ids = [Column.ITEM] if Column.ITEM in ids else ids
    if len(ids) != 1 or EMBEDDING not in names:
        raise DataError(f"{path} has {', '.join(names) or 'nothing'}; expected {_NEEDED}.")
    return ids[0]


def _example(vocabulary: Vocabulary) -> object:
    return vocabulary.table[RAW].head(1).to_list()[0]
