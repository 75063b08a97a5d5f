"""Reads the ledger of a funnel that was played on a simulated world, with what happened then.

Events are those of the world's log and of the play after it; request rows are made of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import polars as pl
from omegaconf import MISSING

from recsys.core.bounds import Hours, OneOf, Settings
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.files import read_chunks
from recsys.data.contract.ledger import (
    DESCRIPTION_FILE,
    GAP_HOURS,
    MOMENT,
    PLAYED,
    SELECTED,
    VALUE_RANK,
    ledger_files,
    read_ledger_description,
)
from recsys.data.contract.parquet import read_parquet, scan_parquet
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Column, Split
from recsys.data.simulator.files import ITEMS_FILE, LOG_FOLDER, PARTS
from recsys.data.simulator.world.play_files import PLAY_FILE, end_of_play
from recsys.data.sources.base import DividedSource
from recsys.data.sources.ledger_rows import POSITION, READ, ROW, gap_hours, scored_rows, shown_rows
from recsys.data.sources.log_rows import hour_of_day
from recsys.data.sources.periods import PeriodOptions, periods
from recsys.data.sources.simulated import SimulatedSource

#: As of when rows have their features: the visit, made anew; or when the candidate was scored, as a
#: service logs them.
VIEWED, WHEN_SCORED = MOMENTS = ("viewed", "scored")
#: What the rows are: items that users were shown, or candidates that the second stage scored.
SHOWN, SCORED = ROWS = ("shown", "scored")

_PLAY_AGAIN = "play it again with `recsys online … ledger=<a new folder>`."


@dataclass(frozen=True)
class SimulationOptions(Settings):
    """The simulated log that a ledger was played on.

    Attributes:
        path: its folder.
    """

    path: str = MISSING


@dataclass(frozen=True)
class LedgerOptions(PeriodOptions):
    """Which rows are made of a ledger; the time that was played is what is split.

    Attributes:
        simulation: what it was played on.
        rows: ``shown``: an item that a user was shown is a row, labelled by what the user did;
            ``scored``: a candidate that the second stage scored is one, labelled by whether it came
            into the list.
        features: of ``shown`` in the fit period, as of when: ``viewed``, made anew for the visit;
            or ``scored``, as they were when a cache's scores were made, which may be hours before
            (Smart Cache §3). Later rows, by which models are chosen and measured, are as of the
            visit always: that is when a ranker is asked.
        max_gap_hours: of ``shown`` in the fit period, rows whose scores were older than this are
            left out; null for none.
    """

    simulation: SimulationOptions = field(default_factory=SimulationOptions)
    rows: Annotated[str, OneOf(ROWS)] = SHOWN
    features: Annotated[str, OneOf(MOMENTS)] = VIEWED
    max_gap_hours: Hours | None = None

    def __post_init__(self) -> None:
        """Refuse what rows of scored candidates have no use for."""
        super().__post_init__()
        if self.rows == SCORED and self.gaps_matter:
            raise ConfigError(
                "options.features and options.max_gap_hours are of rows=shown: with rows=scored "
                "the label says what became of a candidate at the request, and there is no gap."
            )

    @property
    def gaps_matter(self) -> bool:
        """Whether rows depend on how old their scores were."""
        return self.features == WHEN_SCORED or self.max_gap_hours is not None


class LedgerSource(DividedSource):
    """A ledger of ``recsys online``, with the log that it goes on from.

    Args:
        path: the folder of the ledger.
        options: the simulated log, and which rows are made.

    Raises:
        DataError: there is no ledger, it is empty or of another world, or the play was broken off.
    """

    name = "ledger"

    def __init__(self, path: Path, options: LedgerOptions) -> None:
        self.path, self.options = path, options
        simulation = Path(options.simulation.path)
        self._log = SimulatedSource(simulation)
        self._files = ledger_files(path)
        self._scores = read_ledger_description(path)["tasks"]
        self._played = path / PLAYED
        end_of_play(self._played, simulation)  # a play of this world, and whole
        self.actions, self.features = self._log.actions, self._log.features
        self.tasks = self._log.tasks
        if options.rows == SCORED:  # where a candidate stands in the list would say its label
            self.features = tuple(one for one in self.features if one.name != POSITION)
            self.tasks = (SELECTED, VALUE_RANK)

    @cached_property
    def split_bounds(self) -> dict[str, tuple[int, int]]:  # type: ignore[override]
        """The configured bounds, or fractions of the time from the first request to the last."""
        moments = pl.concat(rows[MOMENT] for rows in self._requests([MOMENT]))
        first, last = int(moments.min()), int(moments.max())  # type: ignore[arg-type]
        return periods(self.options, first, last)

    def files(self) -> list[Path]:
        """The simulated log, the ledger, and what was played."""
        played = [self._played / name for name in (PLAY_FILE, ITEMS_FILE)]
        return [
            *self._log.files(),
            self.path / DESCRIPTION_FILE,
            *self._files,
            *played,
            *self._parts,
        ]

    def event_blocks(self, rows: int) -> list[Path]:
        """The parts of the log, then those of the play."""
        return [*self._log.event_blocks(rows), *self._parts]

    def events_of(self, block: Path) -> Iterator[pl.DataFrame]:
        """The events of a part."""
        return self._log.events_of(block)

    def users(self) -> pl.DataFrame:
        """As the log has them."""
        return self._log.users()

    def items(self) -> pl.DataFrame:
        """The items that were published by the end of the play."""
        return read_parquet(self._played / ITEMS_FILE)

    def requests(self) -> Iterator[pl.DataFrame]:
        """Rows with labels and context features, a file of the ledger after the other.

        Raises:
            DataError: there is no row, or a file is damaged.
        """
        published = self.items().select(Column.ITEM, "published_at")
        number = 0
        for requests in self._requests((*READ, GAP_HOURS) if self.options.gaps_matter else READ):
            rows = self._rows(requests)
            number += rows.height
            age = pl.col(Column.REQUEST_TIME) - pl.col("published_at")
            joined = rows.join(published, on=Column.ITEM, how="left", maintain_order="left")
            yield joined.with_columns(
                hour_of_day(pl.col(Column.REQUEST_TIME)),
                (age / MILLISECONDS_PER_HOUR).log1p().cast(pl.Float32).alias("log_item_age"),
            ).drop("published_at")
        if not number:
            raise DataError(
                f"no candidate in {self.path} has a score of the second stage; play a funnel whose "
                "second stage scores, or take options.rows=shown."
                if self.options.rows == SCORED
                else f"nothing of the lists in {self.path} was shown in {self._played}: these are "
                f"not of one play; {_PLAY_AGAIN}"
            )

    def _rows(self, requests: pl.DataFrame) -> pl.DataFrame:
        moments = requests[MOMENT].min(), requests[MOMENT].max()
        of_requests = pl.col(Column.REQUEST_TIME).is_between(*moments)
        events = scan_parquet(self._parts).filter(of_requests).collect()
        if self.options.rows == SHOWN:
            rows = shown_rows(requests, events, self.tasks)
            return self._with_gaps(requests, rows) if self.options.gaps_matter else rows
        return scored_rows(requests, events, len(self._scores))

    def _with_gaps(self, requests: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        """Those of the fit period without what was scored too long ago, or as of when it was."""
        first, end = self.split_bounds[Split.FIT]
        fit = pl.col(Column.REQUEST_TIME).is_between(first, end, closed="left")
        gaps = rows.join(gap_hours(requests), on=ROW, how="left", maintain_order="left")
        if (most := self.options.max_gap_hours) is not None:
            gaps = gaps.filter(~fit | (pl.col(GAP_HOURS) <= most))
        if self.options.features == WHEN_SCORED:
            gap = (pl.col(GAP_HOURS).cast(pl.Float64) * MILLISECONDS_PER_HOUR).round()
            moment = pl.col(Column.REQUEST_TIME) - pl.when(fit).then(gap.cast(pl.Int64)).otherwise(
                0
            )
            gaps = gaps.with_columns(moment.alias(Column.REQUEST_TIME))
        return gaps.drop(GAP_HOURS)

    def _requests(self, columns: Iterable[str]) -> Iterator[pl.DataFrame]:
        for file in self._files:
            yield from read_chunks(file, columns)

    @property
    def _parts(self) -> list[Path]:
        """The files of what was played."""
        return sorted((self._played / LOG_FOLDER).glob(PARTS))
