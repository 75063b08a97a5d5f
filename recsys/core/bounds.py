"""What a setting may be, said by its type: ``k: Annotated[int, Number(at_least=1)]``, or its name.

A dataclass of settings derives from :class:`Settings`, so that values out of bounds are refused
wherever one is made, in Python or by composition. Without a bound a number must be finite, and a
text must not be empty.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import PurePath
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

from recsys.core.errors import ConfigError

UNIONS = (typing.Union, types.UnionType)


class Bound(Protocol):
    """What values of a type are meant; its text completes "it must be …", a number's after it."""

    def fits(self, value: Any) -> bool:
        """Whether it is meant."""


@dataclass(frozen=True)
class Number:
    """Numbers between two ends; without an end they are finite.

    Attributes:
        at_least: the smallest.
        above: what they are above.
        at_most: the largest.
        below: what they are below.
        multiple_of: what divides them.
        besides: one more value that has a meaning of its own.
    """

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    multiple_of: int | None = None
    besides: float | None = None

    def fits(self, value: Any) -> bool:
        """Whether a number lies between the ends; NaN lies nowhere."""
        inside = self.at_least <= value <= self.at_most and self.above < value < self.below
        divided = self.multiple_of is None or value % self.multiple_of == 0
        return (inside and divided) or value == self.besides

    def __str__(self) -> str:
        if math.isfinite(self.at_least) and math.isfinite(self.at_most):
            text = f"from {self.at_least:,} to {self.at_most:,}"
        else:
            ends = (
                ("at least", self.at_least),
                ("above", self.above),
                ("at most", self.at_most),
                ("below", self.below),
            )
            text = " and ".join(f"{word} {end:,}" for word, end in ends if math.isfinite(end))
        if self.multiple_of is not None:
            text += f" and a multiple of {self.multiple_of}"
        return text if self.besides is None else f"{text}, or {self.besides}"


@dataclass(frozen=True)
class OneOf:
    """A choice among names, or numbers."""

    choices: tuple[Any, ...]

    def fits(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.choices

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.choices))}"


class FolderName:
    """A name that a folder can have: of a data set, of a run."""

    def fits(self, value: str) -> bool:
        """Whether it names a folder in another one and not a place elsewhere."""
        plain = value == PurePath(value).name and value.isprintable() and value.strip() != ""
        return plain and value not in (".", "..")

    def __str__(self) -> str:
        return "a plain name without slashes, of which a folder is made"


class ReadPlace:
    """A file or folder that a command reads, or the URL of one."""

    def fits(self, value: str) -> bool:
        """Whether a URL is of a kind that is read, and holds nothing that is secret."""
        from recsys.core.location import url_problem  # which few settings need

        text = os.fspath(value)
        return text.strip() != "" and ("://" not in text or url_problem(text) is None)

    def __str__(self) -> str:
        return (
            "a path, or a URL of s3, gs, hdfs or file that has neither a password nor a query "
            "(credentials come from the environment, a profile or the machine's role)"
        )


class NewPath:
    """A file or folder that a command writes on a disk."""

    def fits(self, value: str) -> bool:
        """Whether it ends in a name."""
        return "://" not in os.fspath(value) and PurePath(value).name not in ("", "..")

    def __str__(self) -> str:
        return "a path, and no URL, that ends in the name of what is written"


class NewPlace(ReadPlace):
    """A folder that a command writes, or the URL of one."""

    def fits(self, value: str) -> bool:
        """Whether it ends in a name."""
        from recsys.core.location import TABLE_SCHEME  # which few settings need

        is_table = os.fspath(value).startswith(f"{TABLE_SCHEME}://")
        return super().fits(value) and not is_table and PurePath(value).name not in ("", "..")

    def __str__(self) -> str:
        return f"{super().__str__()}, that ends in the name of what is written"


class NewPage(NewPath):
    """A page that a command writes."""

    def fits(self, value: str) -> bool:
        """Whether it ends in the name of one."""
        return super().fits(value) and value.endswith(".html")

    def __str__(self) -> str:
        return "a page, whose name ends in .html"


class StoreAddress:
    """A folder, or the URL of a Redis."""

    def fits(self, value: str) -> bool:
        """Whether the port of a URL can be one."""
        try:
            return value != "" and ("://" not in value or urlsplit(value).port != 0)
        except ValueError:
            return False

    def __str__(self) -> str:
        return "a folder, or a URL such as redis://host:6379/0 with a port from 1 to 65,535"


#: How many of something there are; what memory holds has smaller bounds.
Count = Annotated[int, Number(at_least=1, at_most=10**9)]
CountOrZero = Annotated[int, Number(at_least=0, at_most=10**9)]
#: Rows of a table: indices are int32.
Rows = Annotated[int, Number(at_least=1, at_most=2**31 - 1)]
#: Numbers of a vector, or outputs of a layer.
Width = Annotated[int, Number(at_least=1, at_most=16_384)]
WidthOrZero = Annotated[int, Number(at_least=0, at_most=16_384)]
#: Layers, heads, blocks: of few things that each are large.
Few = Annotated[int, Number(at_least=1, at_most=1_024)]
#: Steps of a sequence.
Length = Annotated[int, Number(at_least=1, at_most=1_000_000)]
#: Examples that are in memory at a time.
BatchSize = Annotated[int, Number(at_least=1, at_most=1_000_000)]
#: Processes that work on one thing, ranks of a training.
Processes = Annotated[int, Number(at_least=1, at_most=65_536)]
#: Processes of one machine that load data.
Workers = Annotated[int, Number(at_least=0, at_most=1_024)]
#: Processes of one machine that each do a whole task.
Jobs = Annotated[int, Number(at_least=1, at_most=1_024)]
#: Rows of a table that hashes choose among; each is held in memory from the start.
Buckets = Annotated[int, Number(at_least=1, at_most=2**28)]
#: What is recommended to a user; with fewer items in the index it is all of them.
ItemsPerUser = Annotated[int, Number(at_least=1, at_most=100_000)]
Seed = Annotated[int, Number(at_least=0, at_most=2**32 - 1)]

Finite = Annotated[float, Number()]
Positive = Annotated[float, Number(above=0)]
NotNegative = Annotated[float, Number(at_least=0)]
Share = Annotated[float, Number(at_least=0, at_most=1)]
ShareBelowOne = Annotated[float, Number(at_least=0, below=1)]
#: Up to a thousand years: moments minus them stay dates, and far from the ends of int64 ms.
Hours = Annotated[float, Number(at_least=0, at_most=8_766_000)]
HoursAboveZero = Annotated[float, Number(above=0, at_most=8_766_000)]
WholeHours = Annotated[int, Number(at_least=1, at_most=8_766_000)]
Days = Annotated[float, Number(above=0, at_most=365_250)]
WholeDays = Annotated[int, Number(at_least=0, at_most=365_250)]
#: Rows of a table that is priced and not made.
TableSize = Annotated[int, Number(at_least=1, at_most=10**13)]
Gibibytes = Annotated[float, Number(above=0, at_most=2**20)]

Name = Annotated[str, FolderName()]
Place = Annotated[str, ReadPlace()]
OutPath = Annotated[str, NewPath()]
OutPlace = Annotated[str, NewPlace()]
PagePath = Annotated[str, NewPage()]
Store = Annotated[str, StoreAddress()]


class Settings:
    """Base of the dataclasses of settings: no instance has a value out of its type's bounds.

    A subclass with checks of its own, of settings that must fit each other, calls this one first.
    """

    def __post_init__(self) -> None:
        """Refuse values that their types do not mean."""
        refuse_misfits(type(self), vars(self))


def refuse_misfits(schema: type, values: Mapping[str, Any], place: str = "") -> None:
    """Refuse the first value that the type of its setting does not mean.

    Args:
        schema: a dataclass.
        values: by the names of its fields.
        place: what comes before the fields' names in the key of a setting, such as ``trainer.``.

    Raises:
        ConfigError: a sentence with the key, the value, and what is expected.
    """
    for name, hint in field_hints(schema).items():
        if name in values:
            refuse_misfit(hint, values[name], f"{place}{name}")


def refuse_misfit(hint: Any, value: Any, key: str) -> None:
    """Refuse a value that the type ``hint`` of the setting ``key`` does not mean.

    Raises:
        ConfigError: a sentence with the key, the value, and what is expected.
    """
    for problem in _misfits(hint, value, key):
        raise ConfigError(problem)


@functools.cache
def field_hints(schema: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their bounds."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def without_none(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether None was in it; a union of several stays one."""
    if typing.get_origin(hint) not in UNIONS:
        return hint, False
    inner = tuple(one for one in typing.get_args(hint) if one is not type(None))
    return inner[0] if len(inner) == 1 else hint, len(inner) < len(typing.get_args(hint))


def _misfits(hint: Any, value: Any, key: str) -> Iterator[str]:
    """Sentences of what is wrong with the value of a setting, or with what is in it."""
    hint, optional = without_none(hint)
    if value is None and optional:
        return
    bounds: list[Bound] = []
    if typing.get_origin(hint) is Annotated:
        hint, *bounds = typing.get_args(hint)
    parts = typing.get_args(hint)
    kind = typing.get_origin(hint) or hint
    if kind in (list, tuple):
        if not isinstance(value, (list, tuple)):
            yield f"{key} is {_SHORT.repr(value)}; it takes a list, write `{key}=[value]`."
            return
        if kind is tuple and ... not in parts and len(value) != len(parts):
            yield f"{key} is {list(value)}, it must be a list of {len(parts)}."
            return
        for position, item in enumerate(value):
            one = parts[position] if kind is tuple and ... not in parts else parts[0]
            yield from _misfits(one, item, f"{key}[{position}]")
    elif kind is dict:
        for name, item in value.items():
            yield from _misfits(parts[0], name, f"a key of {key}")
            yield from _misfits(parts[1], item, f"{key}.{name}")
    elif kind is str and isinstance(value, Real):
        yield f"{key} is {_SHORT.repr(value)}, no text; in a YAML file, write it in quotes."
    elif kind in _KINDS:
        types_, expected, default = _KINDS[kind]
        is_typed = isinstance(value, types_) and isinstance(value, bool) == (kind is bool)
        if not is_typed or not all(bound.fits(value) for bound in bounds or default):
            meant = " and ".join(
                f"{expected} {bound}".strip() if isinstance(bound, Number) else str(bound)
                for bound in bounds
            )
            none = ", or null" * optional
            yield f"{key} is {_SHORT.repr(value)}, it must be {meant or expected}{none}."


class _NotEmpty:
    """A text with something to read in it."""

    def fits(self, value: str | os.PathLike[str]) -> bool:
        """Whether there is."""
        return os.fspath(value).strip() != ""


#: By type: what its values are, how a sentence calls them, and their bounds where none are given.
_KINDS: dict[type, tuple[tuple[type, ...], str, tuple[Bound, ...]]] = {
    bool: ((bool,), "true or false", ()),
    int: ((Integral,), "a whole number", (Number(-(2**63), at_most=2**63 - 1),)),
    float: ((Real,), "a finite number", (Number(),)),
    str: ((str, os.PathLike), "a text that is not empty", (_NotEmpty(),)),
}

#: Values as a sentence shows them.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
