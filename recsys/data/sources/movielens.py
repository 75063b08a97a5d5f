"""MovieLens-1M (Harper and Konstan, 2015): who rated which film, in which order.

Files, as their owners name them: ``ratings.dat``, ``movies.dat``, ``users.dat``. Where there is no
``ratings.dat``, a file ``*sequences*.txt`` stands in for it: one user per line, a tab, and the
user's film ids in order of time.

Every rating, whatever its value, is one explicit ``click``. The benchmark of the field predicts
the last film of every user from the films before it, whenever that was, so time itself is not
used: every user has *pseudo times*, one second apart from the same first moment on, and the last
two films lie in periods of their own. The split by time is then leave-one-out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.files import describe_type
from recsys.data.contract.manifest import ORDER
from recsys.data.contract.schema import LOG_SCHEMA, Column, Feature, FeatureKind, FeatureSide
from recsys.data.sources.base import Source
from recsys.data.sources.order import last_events_apart, order_bounds, pseudo_times

ACTION = "click"

_SEPARATOR = "::"
_RATINGS, _MOVIES, _USERS = "ratings.dat", "movies.dat", "users.dat"
_SEQUENCES = "*sequences*.txt"
_WHERE_FROM = (
    "MovieLens-1M is published at https://grouplens.org/datasets/movielens/1m: unpack ml-1m.zip "
    "so that ratings.dat, movies.dat and users.dat lie in that folder, or "
    "say where it lies: path=, data_dir= or RECSYS_DATA_DIR"
)


@dataclass(frozen=True)
class MovieLensOptions:
    """MovieLens has nothing to set: the last film is reported, the one before it chosen on."""


class MovieLensSource(Source):
    """Reads MovieLens-1M.

    Ratings at the same second are in the order of the file, which published pipelines break
    differently. A film has its title and its genres as texts, its first genre and its year as
    features; a user has gender, age group, occupation and the first digit of the zip code.

    Args:
        folder: the folder with the files.
        options: none.
    """

    name = "movielens"
    tasks = ()
    times = ORDER
    texts = ("title", "genres")
    features = (
        *(
            Feature(name, FeatureSide.USER, FeatureKind.CATEGORICAL)
            for name in ("gender", "age", "occupation", "zip_area")
        ),
        Feature("first_genre", FeatureSide.ITEM, FeatureKind.CATEGORICAL),
        Feature("release_year", FeatureSide.ITEM, FeatureKind.DENSE),
    )

    def __init__(self, folder: Path, options: MovieLensOptions | None = None) -> None:
        self.folder = folder
        self.split_bounds = order_bounds(evaluated_days=1)

    def files(self) -> list[Path]:
        """Ratings or sequences, films and users."""
        for name in (_MOVIES, _USERS):
            if not (self.folder / name).is_file():
                raise DataError(f"{self.folder / name} is missing. {_WHERE_FROM}.")
        return [self._log_file(), self.folder / _MOVIES, self.folder / _USERS]

    def events(self) -> Iterator[pl.DataFrame]:
        """Every rating at its pseudo time."""
        path = self._log_file()
        ordered = _read_ratings(path) if path.name == _RATINGS else _read_sequences(path)
        user = ordered["user"]
        split = last_events_apart(user, pl.repeat(True, len(user), eager=True), last=1)
        known = {
            Column.USER: pl.col("user"),
            Column.ITEM: pl.col("item"),
            Column.TIMESTAMP: pl.lit(pseudo_times(user, split, self.split_bounds)),
            Column.ACTION_TYPE: pl.lit(ACTION),
        }
        yield ordered.select(
            known.get(Column(name), pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in LOG_SCHEMA.items()
        )

    def requests(self) -> Iterator[pl.DataFrame]:
        """Nothing: the log does not say what was shown."""
        return iter(())

    def users(self) -> pl.DataFrame:
        """Gender, age group, occupation, and the region that the zip code begins with."""
        path = self.folder / _USERS
        users = _read_fields(path, ("user", "gender", "age", "occupation", "zip"), ("user",))
        return users.select(
            pl.col("user").alias(Column.USER),
            "gender",
            "age",
            "occupation",
            pl.col("zip").str.slice(0, 1).alias("zip_area"),
        )

    def items(self) -> pl.DataFrame:
        """Title without the year, genres joined by ``|``, first genre and year."""
        path = self.folder / _MOVIES
        films = _read_fields(path, ("item", "title", "genres"), ("item",))
        year = pl.col("title").str.extract(r"\((\d{4})\)\s*$")
        return films.select(
            pl.col("item").alias(Column.ITEM),
            pl.lit(None, pl.Int64).alias(Column.AUTHOR),
            pl.lit(None, pl.Int64).alias(Column.TOPIC),
            pl.col("title").str.replace(r"\s*\(\d{4}\)\s*$", ""),
            "genres",
            pl.col("genres").str.split("|").list.first().alias("first_genre"),
            year.cast(pl.Float64).alias("release_year"),
        )

    def _log_file(self) -> Path:
        ratings = self.folder / _RATINGS
        if ratings.is_file():
            return ratings
        found = sorted(self.folder.glob(_SEQUENCES))
        if len(found) != 1:
            held = "no" if not found else "more than one"
            raise DataError(
                f"{self.folder} has no {_RATINGS} and {held} {_SEQUENCES}. {_WHERE_FROM}."
            )
        return found[0]


def _read_ratings(path: Path) -> pl.DataFrame:
    """``user`` and ``item``, a user's films in order of time, ties in the order of the file."""
    numbers = ("user", "item", "time")
    ratings = _read_fields(path, ("user", "item", "rating", "time"), numbers)
    return ratings.sort("time", maintain_order=True).select("user", "item")


def _read_sequences(path: Path) -> pl.DataFrame:
    """``user`` and ``item`` of lines ``user<TAB>item item …``, in their order."""
    lines = _read_fields(path, ("user", "item"), ("user",), separator="\t")
    films = lines.with_columns(pl.col("item").str.split(" ")).explode("item")
    return films.select("user", _numbers(path, films["item"]))


def _read_fields(
    path: Path, names: tuple[str, ...], numbers: tuple[str, ...], separator: str = _SEPARATOR
) -> pl.DataFrame:
    """The fields of every line as text, those of ``numbers`` as whole numbers.

    Raises:
        DataError: a line has another number of fields, or a field is no number.
    """
    lines = pl.Series("line", path.read_bytes().decode("latin-1").splitlines(), pl.String)
    if not len(lines):
        raise DataError(f"{path} is empty. {_WHERE_FROM}.")
    fields = lines.str.split(separator)
    wrong = (fields.list.len() != len(names)).arg_true()
    if len(wrong):
        raise DataError(
            f"{path}, line {wrong[0] + 1}: expected {len(names)} fields between {separator!r} "
            f"({', '.join(names)}), found {fields.list.len()[wrong[0]]}; fetch the file again "
            "from its owners."
        )
    table = pl.DataFrame([fields.list.get(position).alias(n) for position, n in enumerate(names)])
    return table.with_columns(_numbers(path, table[name]) for name in numbers)


def _numbers(path: Path, column: pl.Series) -> pl.Series:
    typed = column.cast(pl.Int64, strict=False)
    if typed.null_count():
        bad = column.filter(typed.is_null())[0]
        raise DataError(
            f"{path}, {column.name}: {bad!r} is not {describe_type(pl.Int64())}; fetch the file "
            "again from its owners."
        )
    return typed
