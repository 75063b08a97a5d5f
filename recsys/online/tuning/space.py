"""The numbers of a funnel that are tuned: where they stand in its configuration, and their ranges.

Legend: n points, P parameters.
"""

from __future__ import annotations

import ast
import difflib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.online.tuning.config import Range
from recsys.serving.funnel.config import FunnelConfig

Values = dict[str, float]
#: Trials of a grid.
_MOST = 10_000
#: Names of settings, and numbers in lists, from the outside in.
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Parameter:
    """A number that is tuned.

    Attributes:
        name: the term it multiplies, or its place.
        low: smallest value.
        high: largest.
        whole: whether it is a whole number.
        now: its value in the funnel as it is.
    """

    name: str
    low: float
    high: float
    whole: bool
    now: float


class Space:
    """The parameters of a tuning.

    Args:
        funnel: as it is.
        ranges: by the name of a parameter.

    Attributes:
        parameters: P, in the order of ``ranges``.

    Raises:
        ConfigError: there is no such number in the funnel, its value is not in the range, or an end
            of the range is none that the funnel takes.
    """

    def __init__(self, funnel: FunnelConfig, ranges: Mapping[str, Range]) -> None:
        self._funnel = funnel
        self._weights = _weights(funnel.value.expression)
        self._places = {_text(place): (place, value) for place, value in _numbers(funnel)}
        there = self._weights | {name: value for name, (_, value) in self._places.items()}
        self.parameters = tuple(_parameter(name, one, there) for name, one in ranges.items())
        for one in self.parameters:
            for end in (one.low, one.high):
                try:
                    self.funnel_with({one.name: end})
                except ConfigError as error:
                    raise ConfigError(f"tuning.parameters: {one.name}={end:g}: {error}") from error

    @property
    def now(self) -> Values:
        """The values of the funnel as it is."""
        return {one.name: one.now for one in self.parameters}

    def funnel_with(self, values: Mapping[str, float]) -> FunnelConfig:
        """The funnel with some numbers otherwise.

        Raises:
            ConfigError: they are none that it takes.
        """
        funnel = self._funnel
        weights = {name: values[name] for name in self._weights if name in values}
        if weights:
            text = _with_weights(funnel.value.expression, weights)
            funnel = _replaced(funnel, ("value", "expression"), text)
        for name in values.keys() - self._weights.keys():
            place, _ = self._places[name]
            funnel = _replaced(funnel, place, values[name])
        return funnel

    def check_replayed(self) -> None:
        """Check that a ledger can be replayed under every parameter.

        Raises:
            ConfigError: one is neither of the value model nor a rule of the list.
        """
        for one in self.parameters:
            if one.name not in self._weights and not one.name.startswith("rerank."):
                raise ConfigError(
                    f"way=offline: {one.name} is neither of the value model nor of the rules of "
                    "the list (rerank), with which alone a ledger is replayed; leave it out of "
                    "tuning.parameters, or give way=online."
                )

    def at(self, points: NDArray[np.float64]) -> Sequence[Values]:
        """The values at points [n, P] in [0, 1); whole numbers are as likely as each other."""
        found = []
        for point in points.tolist():
            values = {}
            for one, share in zip(self.parameters, point, strict=True):
                if one.whole:
                    values[one.name] = one.low + int(share * (one.high - one.low + 1))
                else:
                    values[one.name] = one.low + share * (one.high - one.low)
            found.append(values)
        return found

    def grid(self, levels: int) -> Sequence[Values]:
        """Every level of every parameter with each other, the last one's changing first.

        Raises:
            ConfigError: these are too many to be played.
        """
        if levels ** len(self.parameters) > _MOST:
            raise ConfigError(
                f"way=grid: levels={levels} of {len(self.parameters)} parameters are more than "
                f"{_MOST:,} trials; tune fewer parameters, or give fewer levels or way=online."
            )
        axes = []
        for one in self.parameters:
            level = np.linspace(one.low, one.high, levels)
            axes.append(np.unique(level.round().astype(int) if one.whole else level).tolist())
        names = [one.name for one in self.parameters]
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*axes)]


def _weights(text: str) -> dict[str, float]:
    """The numbers that multiply a task or a function, by the text of that; a term once."""
    try:
        products = list(_products(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}  # whoever makes the value model says what is wrong
    names = Counter(name for name, _ in products)
    return {name: float(ast.literal_eval(number)) for name, number in products if names[name] == 1}


def _with_weights(text: str, weights: Mapping[str, float]) -> str:
    """An expression with other numbers before some terms."""
    tree = ast.parse(text.strip(), mode="eval")
    for name, number in _products(tree):
        if name in weights:
            number.value = float(weights[name])
    return ast.unparse(tree)


def _products(tree: ast.Expression) -> Iterator[tuple[str, ast.Constant]]:
    """Terms that a number stands before, with the number; a minus is none of it."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(
                left=(
                    (ast.Constant(value=int() | float()) as number)
                    | ast.UnaryOp(operand=ast.Constant(value=int() | float()) as number)
                ),
                op=ast.Mult(),
                right=ast.Name() | ast.Call() as term,
            ):
                yield ast.unparse(term), number


def _numbers(of: Any, place: Place = ()) -> Iterator[tuple[Place, float]]:
    """Place and value of every number of nested settings."""
    if isinstance(of, (int, float)) and not isinstance(of, bool):
        yield place, of
    inside = enumerate(of) if isinstance(of, list) else _named(of).items()
    for name, one in inside:
        yield from _numbers(one, (*place, name))


def _named(of: Any) -> dict[Any, Any]:
    if isinstance(of, dict):
        return of
    return vars(of) if is_dataclass(of) else {}


def _text(place: Place) -> str:
    """As OmegaConf has it: ``rerank.at_most[0].share``."""
    parts = (f"[{one}]" if isinstance(one, int) else f".{one}" for one in place)
    return "".join(parts).removeprefix(".")


def _replaced(of: Any, place: Place, value: Any) -> Any:
    """Nested settings with another value at a place; their own checks run."""
    if not place:
        return value
    name, *inner = place
    if isinstance(of, list):
        return [_replaced(one, (*inner,), value) if n == name else one for n, one in enumerate(of)]
    changed = _replaced(_named(of)[name], (*inner,), value)
    return of | {name: changed} if isinstance(of, dict) else replace(of, **{str(name): changed})


def _parameter(name: str, of: Range, there: Mapping[str, float]) -> Parameter:
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}."
        raise ConfigError(
            f"tuning.parameters: the funnel has no number {name}, neither as what multiplies a "
            f"term of its value.expression once nor as a setting; {hint}"
        )
    now = there[name]
    if not of.low <= now <= of.high:
        raise ConfigError(
            f"tuning.parameters: {name} is {now:g} in the funnel as it is, which is not from "
            f"{of.low:g} to {of.high:g}; widen the range."
        )
    whole = isinstance(now, int)
    if whole and (of.low % 1 or of.high % 1):
        raise ConfigError(
            f"tuning.parameters: {name} is a whole number; low={of.low:g} and high={of.high:g} "
            "must be too."
        )
    kind = int if whole else float
    return Parameter(name, kind(of.low), kind(of.high), whole, now)
