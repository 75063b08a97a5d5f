"""Tables of what is known of ids, in a Parquet file with the column ``index``."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.manifest import PREPARE_AGAIN
from recsys.data.contract.parquet import read_parquet
from recsys.data.stores.vocabulary import INDEX


def read_indexed(path: Path) -> pl.DataFrame:
    """The whole table; ``index`` alone and no row where there is no file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return pl.DataFrame(schema={INDEX: pl.Int32()})
    try:
        return read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} is damaged ({str(error).splitlines()[0]}); {PREPARE_AGAIN}"
        ) from error
