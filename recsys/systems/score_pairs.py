"""Scores of given pairs of users and items: a frame in, the same frame with scores out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from omegaconf import MISSING

from recsys.core.bounds import OutPath, Processes, Settings
from recsys.core.engines import EngineConfig
from recsys.core.errors import DataError
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.hour_of_day import follows
from recsys.data.contract.given_tables import (
    given_ids,
    in_type_of,
    log_times,
    named_column,
    others,
    read_given,
)
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import as_of_moment, moments_of
from recsys.data.contract.schema import Column, FeatureSide
from recsys.data.contract.table_formats import check_ending, check_table, write_table
from recsys.data.sources.log_rows import HOUR_OF_DAY
from recsys.data.stores.dataset import FEATURES, PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.vocabulary import RAW, UNKNOWN_INDEX
from recsys.distributed.together import together
from recsys.evaluation.division import first_before_others, gathered, once, own_share
from recsys.runs.load import LoadedRun
from recsys.systems.base import System
from recsys.systems.registry import system_named
from recsys.systems.runs import given_folders, load_run

#: What a file of scores is known by.
MADE_BY = "recsys score"

#: The column of a pair's moment: one of these.
AT = "at"
_MOMENTS = (AT, Column.REQUEST_TIME.value)


@dataclass(frozen=True)
class ScoreConfig(Settings):
    """Which pairs are scored.

    Attributes:
        run_dir: the run folder.
        pairs: Parquet, CSV, TSV or JSON Lines: ``user_id``, ``item_id``, and where they are known
            ``at`` (or ``request_time``) and context features.
        out: file to write, in the format of its ending; None prints the first rows.
        at: ISO 8601 (UTC) or ms: the moment of pairs that have none; None for the log's end.
        checkpoint: ``best``, ``last``, or a path.
        dataset: the prepared data set, where it was moved since the training.
        processes: that divide the work, those of a launcher or of this machine.
        engine: ``ray`` divides it over Ray's workers instead.
    """

    run_dir: str = MISSING
    pairs: str = MISSING
    out: OutPath | None = None
    at: str | None = None
    checkpoint: str = "best"
    dataset: str | None = None
    processes: Processes = 1
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        """Refuse a file whose ending names no format, and two numbers of processes."""
        super().__post_init__()
        self.engine.refuse_beside(self.processes)
        if self.out is not None:
            check_ending(self.out)


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Pairs with their scores.

    Attributes:
        table: the columns that were given, ids in the type of the log, and the scores behind them.
        scores: names of the columns of scores.
        moment: ms, of pairs that have none.
        unknown_users: pairs whose user is not in the log.
        unknown_items: pairs with an item that the log or the model does not know.
        not_used: columns that are neither ids, moment nor features of the model.
        not_given: context features that the log has, and the pairs have no column of.
    """

    table: pl.DataFrame
    scores: list[str]
    moment: int
    unknown_users: int
    unknown_items: int
    not_used: list[str] = field(default_factory=list)
    not_given: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """Sentences on columns that are missing, and on those that are not looked at."""
        lines = []
        if self.not_given:
            lines.append(
                f"Context that the pairs do not say, unknown: {', '.join(self.not_given)}."
            )
        if self.not_used:
            lines.append(f"Columns that the model does not look at: {', '.join(self.not_used)}.")
        return lines


def score(config: ScoreConfig) -> ScoredPairs:
    """Score the pairs of a file, and write them where ``out`` is given.

    Raises:
        RecsysError: the run or the file cannot be used, or the system scores no pairs.
    """
    return together(
        config.processes,
        _score,
        config,
        engine=config.engine,
        folders=given_folders(config.run_dir, config.dataset),
    )


def _score(config: ScoreConfig) -> ScoredPairs:
    out = None if config.out is None else Path(config.out)
    if out is not None:
        first = [Column.USER.value, Column.ITEM.value]
        check_table(out, MADE_BY, first, [config.run_dir, config.pairs])
    pairs = read_given(config.pairs, "pairs")
    with first_before_others():
        run = load_run(config.run_dir, config.checkpoint, config.dataset)
    moment = as_of_moment(config.at, run.dataset.newest)
    scored = score_pairs(system_named(run.config.system), run, pairs, moment, config.pairs)
    if out is not None:
        once(lambda: write_table([scored.table], out, MADE_BY))
    return scored


def score_pairs(
    system: System[Any],
    run: LoadedRun[Any, Any],
    pairs: pl.DataFrame,
    moment: int,
    where: str = "the pairs",
) -> ScoredPairs:
    """Score pairs of users and items.

    Args:
        system: that of the run.
        run: the trained model.
        pairs: ``user_id`` and ``item_id`` (or as the log calls them), ``at`` or ``request_time``,
            and context features; what else there is stays as it is.
        moment: ms, of pairs without one.
        where: the file, for sentences.

    Raises:
        DataError: a column is missing or cannot be used.
        ConfigError: the system scores no pairs.
    """
    manifest = run.dataset.manifest
    ids = {name: given_ids(where, pairs, name, manifest) for name in (Column.USER, Column.ITEM)}
    vocabularies = {Column.USER: "user", Column.ITEM: "item"}
    index: dict[str, NDArray[np.int64]] = {}
    for name, vocabulary in vocabularies.items():
        known = run.dataset.vocabulary(vocabulary)
        index[name] = known.indices(ids[name]).cast(pl.Int64).to_numpy()
        ids[name] = in_type_of(ids[name], known.table.schema[RAW])
    sources = {name: named_column(pairs.columns, name, manifest) for name in ids}
    at = _moments(where, pairs, moment, manifest)
    context, not_given = _context(run.dataset, pairs) if system.takes_context else (None, [])
    rows = GivenRows(index[Column.USER], index[Column.ITEM], at, context)
    found = _scores(system, run, rows)
    known_pair = (rows.user != UNKNOWN_INDEX) & (rows.item != UNKNOWN_INDEX)
    scores = {
        name: pl.Series(name, np.where(known_pair, values, np.nan)).fill_nan(None)
        for name, values in found.items()
    }
    used = [*sources.values(), *_MOMENTS, *(() if context is None else context.columns)]
    rest = others(pairs.columns, used)
    _refuse_taken(where, rest, list(scores))
    without = np.logical_or.reduce([np.isnan(values) for values in found.values()])
    kept = [name for name in pairs.columns if name not in sources.values()]
    return ScoredPairs(
        table=pl.DataFrame([*ids.values(), *(pairs[name] for name in kept), *scores.values()]),
        scores=list(scores),
        moment=moment,
        unknown_users=int((rows.user == UNKNOWN_INDEX).sum()),
        unknown_items=int(((rows.item == UNKNOWN_INDEX) | without).sum()),
        not_used=rest,
        not_given=not_given,
    )


def _scores(
    system: System[Any], run: LoadedRun[Any, Any], rows: GivenRows
) -> dict[str, NDArray[np.float64]]:
    """What the model says of rows, by name [R]; each process scores those of its requests."""
    requests = rows.requests
    mine = own_share(range(len(requests)))
    place = np.concatenate([requests.row[:0], *map(requests.rows, mine)])
    some = GivenRows(rows.user[place], rows.item[place], rows.moment[place], rows.context_of(place))
    # of no row at all every process says how its columns are called
    has_some = len(place) or not len(requests)
    shares = gathered([(place, system.score(run, some))] if has_some else [])
    found = {name: np.empty(len(rows)) for name in shares[0][1]}
    for place, scores in shares:
        for name, values in scores.items():
            found[name][place] = values
    return found


def _moments(
    where: str, pairs: pl.DataFrame, moment: int, manifest: DatasetManifest
) -> NDArray[np.int64]:
    present = [name for name in _MOMENTS if name in pairs.columns]
    if len(present) > 1:
        raise DataError(
            f"{where} has the columns {' and '.join(present)}, and which is the moment of a pair "
            "cannot be told; keep one."
        )
    if not present:
        return np.full(len(pairs), moment)
    column = pairs[present[0]]
    read = moments_of(where, column) if column.name == AT else log_times(where, column, manifest)
    return read.fill_null(moment).to_numpy()


def _context(
    dataset: PreparedDataset, pairs: pl.DataFrame
) -> tuple[pl.DataFrame | None, list[str]]:
    """Columns of context features, and the features of the log that there is no column of."""
    manifest = dataset.manifest
    features = [one for one in manifest.features if one.side is FeatureSide.CONTEXT]
    context = pairs.select(one.name for one in features if one.name in pairs.columns)
    encoding = FeatureEncoding.load(dataset.path / FEATURES)
    of_log = [one.name for one in features if encoding.says(one)]
    said = [*context.columns, *([HOUR_OF_DAY.name] if follows(manifest) else [])]
    return (context if context.width else None), others(of_log, said)


def _refuse_taken(where: str, present: list[str], scores: list[str]) -> None:
    taken = [name for name in scores if name in present]
    if taken:
        raise DataError(
            f"{where} has a column {taken[0]}, which is the name of a score; name yours otherwise."
        )
