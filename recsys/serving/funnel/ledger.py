"""The ledger: of every request its candidates, what each stage said of them and where they ended.

A folder of Parquet files, written in the background, one row per request. What cannot be written
(a full disk, a queue that is full) is counted and given up: requests are answered all the same.

Legend: B requests, N candidates over all requests, K tasks.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, cast

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.durable import replaced_file
from recsys.core.errors import DataError, RecsysError
from recsys.core.folders import check_begun
from recsys.data.contract.ledger import (
    DESCRIPTION_FILE,
    MOMENT,
    NUMBER,
    USER,
    read_ledger_description,
    scan_ledger,
    write_ledger_description,
)
from recsys.data.contract.parquet import read_parquet, write_parquet
from recsys.serving.funnel.cache.stage import Recalled
from recsys.serving.funnel.candidates import GAP, Candidates, Requests
from recsys.serving.funnel.funnel import FIRST, SECOND, VALUE, Funnel, Outcome

#: What is noted of candidates beside their scores.
OF_CANDIDATES = ("item", "sources", "fused", "death", "position", "propensity")
_USER_COLUMN = "user_"
#: What stages said, in the order of the columns: files have one form.
_SCORES = (FIRST, SECOND, VALUE, GAP)
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
#: Of cached candidates that were scored freshly too: scores [n, K] then and now, and features.
SAMPLES = ("sample_stale", "sample_fresh", "sample_features")


@dataclass(frozen=True)
class LedgerConfig:
    """How a ledger is written.

    Attributes:
        requests_per_file: at most.
        seconds_per_file: after which a file is ended though it has fewer.
        waiting: batches of requests that wait to be written.
        patient: whether a caller waits where so many wait already; else its requests are lost.
    """

    requests_per_file: int = 4096
    seconds_per_file: float = 10.0
    waiting: int = 256
    patient: bool = False


@dataclass(frozen=True)
class Described:
    """The funnel whose requests a ledger holds.

    Attributes:
        sources: names, by the bit of a candidate's sources.
        stages: names, by the number where a candidate ended.
        tasks: names, by the column of what the second stage predicted.
    """

    sources: tuple[str, ...]
    stages: tuple[str, ...]
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, funnel: Funnel) -> Self:
        """Of a funnel."""
        sources = tuple(one.source.name for one in funnel.supplies)
        return cls(sources, funnel.stages, funnel.value.model.predicted)


class Ledger:
    """Writes what funnels do.

    Args:
        folder: is made; a ledger of the same stages and sources is gone on with.
        described: of the funnel.
        config: how it is written.

    Attributes:
        lost: requests that could not be noted.
        problem: why the last one could not.

    Raises:
        ConfigError: the folder holds something else.
        DataError: it is a ledger of other stages.
    """

    def __init__(
        self, folder: Path, described: Described, config: LedgerConfig | None = None
    ) -> None:
        self.lost = 0
        self.problem: str | None = None
        self._folder = folder
        self._config = config or LedgerConfig()
        self._waiting: queue.Queue[pa.Table | None] = queue.Queue(self._config.waiting)
        self._files = 0
        self._begun = time.time_ns()
        if folder.exists() and any(folder.iterdir()):
            check_begun(folder, [DESCRIPTION_FILE], "ledger of a funnel")
            there = describe(folder)
            if there != described:
                raise DataError(
                    f"{folder} is the ledger of a funnel with the sources "
                    f"{', '.join(there.sources)} and the stages {', '.join(there.stages)}, this "
                    "one has others; name another folder."
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_ledger_description(folder, vars(described))
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    def note(self, requests: Requests, outcome: Outcome, generation: str = "") -> None:
        """Note what became of B requests; returns at once, unless the ledger is patient.

        Args:
            requests: of whom.
            outcome: of a funnel.
            generation: of what served them.
        """
        try:
            self._waiting.put(_table(requests, outcome, generation), self._config.patient)
        except queue.Full:
            self.lost += len(requests)
            self.problem = "more requests came than could be written"

    def close(self) -> None:
        """Write what waits."""
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        going = True
        while going:
            tables: list[pa.Table] = []
            until = time.monotonic() + self._config.seconds_per_file
            while going and sum(map(len, tables)) < self._config.requests_per_file:
                try:
                    table = self._waiting.get(timeout=max(until - time.monotonic(), 0))
                except queue.Empty:
                    break
                going = table is not None
                if table is not None:
                    tables.append(table)
            if tables:
                self._end_file(tables)

    def _end_file(self, tables: list[pa.Table]) -> None:
        name = f"{self._begun}-{os.getpid()}-{self._files:06d}.parquet"
        try:
            with replaced_file(self._folder / name) as partial:
                write_parquet(partial, pa.concat_tables(tables), compression="zstd")
            self._files += 1
        except (OSError, RecsysError, pa.ArrowException) as error:
            self.lost += sum(map(len, tables))
            self.problem = str(error)


def encoded(requests: Requests, outcome: Outcome, generation: str) -> bytes:
    """What became of B requests as bytes, to be kept elsewhere; samples are not in it."""
    table = _table(requests, replace(outcome, samples=None), generation)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def decoded(content: bytes) -> tuple[Requests, Outcome]:
    """The same as it was.

    Raises:
        ValueError: the bytes are not those of :func:`encoded`.
    """
    table = pa.ipc.open_stream(content).read_all()
    requests, outcome = _read(cast(pl.DataFrame, pl.from_arrow(table)))
    scores = outcome.candidates.scores
    if GAP in scores:  # of a cache, whose requests all have samples in a ledger, or none of them
        outcome.samples = Recalled.nothing(scores[SECOND].shape[1])
    return requests, outcome


def describe(folder: Path) -> Described:
    """The funnel of a ledger.

    Raises:
        DataError: the folder holds no ledger.
    """
    found = read_ledger_description(folder)
    return Described(*(tuple(found[name]) for name in ("sources", "stages", "tasks")))


def noted(folder: Path) -> Iterator[tuple[Requests, Outcome]]:
    """What a ledger holds, file by file, as the funnel gave it.

    Requests at which something was missed come apart from the others.

    Raises:
        DataError: the folder holds no ledger.
    """
    describe(folder)
    for file in sorted(folder.glob("*.parquet")):
        rows = read_parquet(file)
        missed = rows["missed"].list.len() > 0
        for some in (rows.filter(~missed), rows.filter(missed)):
            if len(some):
                yield _read(some)


def explain(folder: Path, request: int) -> pl.DataFrame:
    """The candidates of a request, those of the list first, and then by where they ended.

    Returns:
        A row per candidate: ``item`` index, ``position``, ``sources`` and ``ended`` by name (null
        for those of the list), what each stage said: ``fused``, ``first``, ``value`` and a column
        for each task, ``propensity`` of those that were drawn, and with a cache ``gap_hours``.

    Raises:
        DataError: there is no such request.
    """
    described = describe(folder)
    row = scan_ledger(folder).filter(pl.col(NUMBER) == request).collect()
    if row.is_empty():
        numbers = scan_ledger(folder).select(pl.col(NUMBER).min().alias("a"), pl.col(NUMBER).max())
        first, last = numbers.collect().row(0)
        raise DataError(f"{folder} holds no request {request}; it has some from {first} to {last}.")
    return explained(described, _read(row[:1])[1])


def explained(described: Described, outcome: Outcome) -> pl.DataFrame:
    """The candidates of one request, as :func:`explain` has them."""
    of = outcome.candidates
    names = [
        [name for bit, name in enumerate(described.sources) if bits >> bit & 1]
        for bits in of.sources.tolist()
    ]
    stages = dict(enumerate(described.stages))
    frame = pl.DataFrame(
        {
            "item": of.item,
            "position": pl.Series(of.position).replace(0, None),
            "sources": pl.Series(names, dtype=pl.List(pl.String)),
            "ended": [stages.get(number) for number in of.death.tolist()],
            "fused": of.fused,
            "propensity": of.propensity,
            **{name: of.scores[name] for name in (FIRST, VALUE, GAP) if name in of.scores},
            **dict(zip(described.tasks, of.scores[SECOND].T, strict=False)),
        }
    )
    last_first = pl.Series(-of.death.astype(np.int64))
    return frame.sort(pl.col("position"), last_first, -pl.col("fused"), nulls_last=True)


def _table(requests: Requests, outcome: Outcome, generation: str) -> pa.Table:
    of, number = outcome.candidates, len(requests)
    offsets = np.concatenate([[0], np.cumsum(of.lengths)]).astype(np.int32)
    columns: dict[str, pa.Array] = {
        NUMBER: pa.array(requests.number),
        USER: pa.array(requests.user),
        MOMENT: pa.array(requests.moment),
        "generation": pa.array([generation] * number),
        "missed": _pairs(outcome.missed, pa.string(), number),
        "seconds": _pairs(outcome.seconds, pa.float64(), number),
    }
    for name, column in requests.columns.items():
        columns[f"{_USER_COLUMN}{name}"] = pa.array(column)
    for name in OF_CANDIDATES:
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(getattr(of, name)))
    for name in _SCORES:
        if name not in of.scores:
            continue
        scores = of.scores[name]
        width = int(np.prod(scores.shape[1:]))
        flat = pa.array(scores.reshape(-1))
        columns[name] = pa.ListArray.from_arrays((offsets * width).astype(np.int32), flat)
    if (some := outcome.samples) is not None:
        of_request = np.bincount(of.request[some.at], minlength=number)
        ends = np.concatenate([[0], np.cumsum(of_request)])
        matrices = (some.cached.scores, some.predictions, some.cached.features)
        for name, matrix in zip(SAMPLES, matrices, strict=True):
            flat = pa.array(matrix.astype(np.float32).reshape(-1))
            widths = (ends * matrix.shape[1]).astype(np.int32)
            columns[name] = pa.ListArray.from_arrays(widths, flat)
    return pa.table(columns)


def _pairs(of: Mapping[str, object], kind: pa.DataType, number: int) -> pa.Array:
    """So many times the same names and values."""
    pairs = [{"name": name, "value": value} for name, value in of.items()]
    pair = pa.struct([("name", pa.string()), ("value", kind)])
    return pa.array([pairs] * number, pa.list_(pair))


def _read(rows: pl.DataFrame) -> tuple[Requests, Outcome]:
    """Requests and outcome as they were; seconds and what was missed are those of the first."""

    def of(name: str) -> NDArray:
        return rows[name].explode(empty_as_null=False).to_numpy()

    names = [name for name in rows.columns if name.startswith(_USER_COLUMN)]
    requests = Requests(
        rows[NUMBER].to_numpy(),
        rows[USER].to_numpy(),
        rows[MOMENT].to_numpy(),
        {name.removeprefix(_USER_COLUMN): rows[name].to_numpy() for name in names},
    )
    lengths = rows["item"].list.len().to_numpy().astype(np.int64)
    scores = {name: of(name) for name in _SCORES if name in rows.columns}
    number = int(lengths.sum())
    scores[SECOND] = scores[SECOND].reshape(number, len(scores[SECOND]) // max(number, 1))
    candidates = Candidates(
        lengths=lengths,
        scores=scores,
        **{name: of(name) for name in OF_CANDIDATES},
    )
    return requests, Outcome(candidates, _first(rows["seconds"]), _first(rows["missed"]))


def _first(column: pl.Series) -> dict:
    return {one["name"]: one["value"] for one in column[0]}
