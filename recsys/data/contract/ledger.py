"""What the ledger of a funnel is on the disk: a description and Parquet files, a row per request.

``recsys/serving/funnel/ledger.py`` writes it. Columns of candidates hold lists, the candidates of a
request side by side; what the second stage said of one are the K numbers of its tasks.

Legend: K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.parquet import scan_parquet
from recsys.data.contract.schema import Task, TaskKind

DESCRIPTION_FILE = "funnel.json"
_KIND = "recsys funnel ledger"
#: Columns of a request.
NUMBER, USER, MOMENT = "request", "user", "moment"
#: Columns of candidates that stages which score have, [N], [N · K] and [N].
FIRST, SECOND, VALUE = "first", "second", "value"
#: Hours since each candidate's scores were made, [N]; a column of a funnel with a cache.
GAP_HOURS = "gap_hours"
#: What rows of scored candidates say of one: whether later stages put it into the list, and what
#: share of the request's others is worth less by the value model.
SELECTED, VALUE_RANK = Task("selected"), Task("value_rank", TaskKind.REGRESSION)
#: Folder of a ledger with what was shown and done after its requests.
PLAYED = "played"
#: In it the openings of the app, and columns of one: when it was, when a visit followed and how
#: long that waited for its list (null for none, or one that was made in advance), and whether a
#: list was made in advance. What the policy knew then is beside them, a column for each feature.
OPENS_FILE = "opens.parquet"
OPENED_AT, VISITED_AT, WAIT_MS, LISTED = "opened_at", "visited_at", "wait_ms", "listed"


def write_ledger_description(folder: Path, described: Mapping[str, object]) -> None:
    """Begin a ledger in a folder."""
    write_json(folder / DESCRIPTION_FILE, _KIND, dict(described))


def read_ledger_description(folder: Path) -> dict[str, list[str]]:
    """Names of ``sources``, ``stages`` and ``tasks``.

    Raises:
        DataError: the folder holds no ledger.
    """
    return read_json(folder / DESCRIPTION_FILE, _KIND, DataError, "name the folder of a ledger")


def ledger_files(folder: Path) -> list[Path]:
    """The Parquet files, in the order in which they were begun.

    Raises:
        DataError: there are none.
    """
    read_ledger_description(folder)
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no request yet.")
    return files


def scan_ledger(folder: Path) -> pl.LazyFrame:
    """The requests, a row each.

    Raises:
        DataError: there are none.
    """
    return scan_parquet(ledger_files(folder))
