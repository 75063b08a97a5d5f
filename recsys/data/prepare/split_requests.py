"""Request rows taken in, mapped to indices and written by split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.schema import Column, Feature, FeatureKind, FeatureSide, Split
from recsys.data.prepare.intake import Intake
from recsys.data.prepare.request_writer import write_requests
from recsys.data.prepare.side_features import with_cardinality
from recsys.data.sources import Source
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.requests import TRUTHS
from recsys.data.stores.vocabulary import Vocabulary


@dataclass(frozen=True)
class WrittenSplits:
    """What was written.

    Attributes:
        features: of the context.
        counts: ``requests_<split>`` and ``rows_<split>``.
    """

    features: list[Feature]
    counts: dict[str, int]


def write_splits(
    folder: Path,
    source: Source,
    intake: Intake,
    vocabularies: Mapping[str, Vocabulary],
    encoding: FeatureEncoding,
    bounds: Mapping[str, tuple[int, int]],
) -> WrittenSplits:
    """Write the request stores; rows outside every split are set aside.

    Args:
        folder: of the request stores.
        source: names tasks and context features.
        intake: holds the rows.
        vocabularies: of every id column.
        encoding: learns the context features from the fit split.
        bounds: per split ``[first, last)`` request time in ms.

    Raises:
        DataError: a split has no rows.
    """
    intake.remove_duplicated_requests()
    context = [f for f in source.features if f.side == FeatureSide.CONTEXT]
    encoding.fit(context, _rows_within(intake, bounds[Split.FIT]))
    names = {
        kind: [feature.name for feature in context if feature.kind == kind] for kind in FeatureKind
    }
    counts = {}
    for split, bound in track(bounds.items(), "Writing requests", total=len(bounds)):
        written = write_requests(
            folder / split,
            (
                _mapped(rows, source, vocabularies, encoding, context)
                for rows in _rows_within(intake, bound)
            ),
            source.tasks,
            names[FeatureKind.CATEGORICAL],
            names[FeatureKind.DENSE],
        )
        counts[f"requests_{split}"] = written.requests
        counts[f"rows_{split}"] = written.rows
        if written.rows == 0:
            raise DataError(
                f"the {split} period has no request rows; move the bounds of the splits."
            )
    _reject_outside(intake, bounds)
    return WrittenSplits([with_cardinality(feature, encoding) for feature in context], counts)


def _rows_within(intake: Intake, bound: tuple[int, int]) -> Iterator[pl.DataFrame]:
    inside = pl.col(Column.REQUEST_TIME).is_between(*bound, closed="left")
    for partition in range(intake.num_partitions):
        rows = intake.read_requests(partition)
        if rows is not None:
            yield rows.filter(inside)


def _mapped(
    rows: pl.DataFrame,
    source: Source,
    vocabularies: Mapping[str, Vocabulary],
    encoding: FeatureEncoding,
    context: Sequence[Feature],
) -> pl.DataFrame:
    kept = [task.column for task in source.tasks]
    kept += [f"{truth}_{task.name}" for truth in TRUTHS for task in source.tasks]
    return pl.DataFrame(
        [
            vocabularies[Column.USER].indices(rows[Column.USER]).alias("user"),
            vocabularies[Column.ITEM].indices(rows[Column.ITEM]).alias("item"),
            rows[Column.REQUEST_TIME].alias("request_time"),
            *(rows[name] for name in kept if name in rows.columns),
            *(encoding.encode(rows[feature.name], feature) for feature in context),
        ]
    )


def _reject_outside(intake: Intake, bounds: Mapping[str, tuple[int, int]]) -> None:
    time = pl.col(Column.REQUEST_TIME)
    inside = pl.any_horizontal(
        *(time.is_between(*bound, closed="left") for bound in bounds.values())
    )
    for partition in range(intake.num_partitions):
        rows = intake.read_requests(partition)
        if rows is not None:
            intake.rejected.add(rows.filter(~inside), "request row: outside every split")
