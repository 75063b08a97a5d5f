"""The items that a run can recommend at a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_text
from recsys.data.stores.vocabulary import INDEX, RAW
from recsys.index.item_table import describe_items
from recsys.index.usable_items import FIRST_SEEN
from recsys.runs.load import LoadedRun


def known_items(
    run: LoadedRun[Any, Any], learned: NDArray[np.bool_] | None, moment: int
) -> pl.DataFrame:
    """Items that the log had before a moment: ``index`` and what is known of them.

    Args:
        run: the trained model.
        learned: [V] items that it says something of; None for all.
        moment: ms.

    Raises:
        ConfigError: there is none.
    """
    table = run.dataset.vocabulary("item").table
    if learned is not None:
        table = table.filter(pl.Series(learned[table[INDEX].to_numpy()]))
    described = describe_items(table[RAW], run.dataset, moment, None)
    described = described.with_columns(table[INDEX]).filter(pl.col(FIRST_SEEN) < moment)
    if described.is_empty():
        raise ConfigError(
            f"As of {to_text(moment)} the log had no item that the model knows; give a later as_of."
        )
    return described
