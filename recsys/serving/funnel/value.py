"""The value model: what a candidate is worth, as an expression over calibrated predictions.

    1.0 * p(like) + 0.3 * log1p(watch_time) - 8 * p(see_less)

``p(task)`` is the probability of a binary task; the name of a regression task alone is what is
predicted of it. There are numbers, ``+ - * /``, brackets, ``min(a, b)``, ``max(a, b)``,
``log1p(a)``, ``sqrt(a)`` and ``clip(a, low, high)``, and nothing else: an expression can compute a
number and do nothing besides (Instagram Explore, "value model": a weighted sum over the predicted
actions, those that nobody wants with negative weights).

Legend: n candidates, K tasks.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError

Values = NDArray[np.float64]

#: Functions and how many arguments each takes.
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Values]]] = {
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "log1p": (1, np.log1p),
    "sqrt": (1, np.sqrt),
    "clip": (3, lambda value, low, high: np.minimum(np.maximum(value, low), high)),
}
_PROBABILITY = "p"
_OPERATORS: Mapping[type[ast.operator], Callable[[Values, Values], Values]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
#: Longer texts and deeper ones are nobody's value model.
_LONGEST, _DEEPEST = 2_000, 50

_Term = Callable[[Values], Values]


@dataclass(frozen=True, eq=False)
class ValueModel:
    """An expression that was understood.

    Attributes:
        text: as it was given.
        tasks: those it reads, in the order of the predictions.
        predicted: the K tasks whose predictions it takes.
    """

    text: str
    tasks: tuple[str, ...]
    predicted: tuple[str, ...]
    _term: _Term

    def __call__(self, predictions: NDArray[np.floating]) -> Values:
        """What candidates are worth.

        Args:
            predictions: [n, K] of the tasks that the model was made for.

        Returns:
            [n]; NaN where a prediction is NaN, or where the expression is no number there
            (a division by 0, a root of a negative number): whoever ranks leaves those out.
        """
        columns = np.asarray(predictions, np.float64)
        with np.errstate(all="ignore"):
            found = np.broadcast_to(self._term(columns), len(columns))
            # what is as good as infinity is no number either
            return np.where(np.isfinite(found), found, np.nan)


def parse_value(text: str, binary: Sequence[str], regression: Sequence[str] = ()) -> ValueModel:
    """Understand an expression.

    Args:
        text: the expression.
        binary: names of tasks whose predictions are probabilities.
        regression: names of the others. Predictions come in the order of both, binary ones first.

    Raises:
        ConfigError: it is no expression of this language, or reads a task that is not there.
    """
    parser = _Parser(text, tuple(binary), tuple(regression))
    return ValueModel(text, parser.read, (*binary, *regression), parser.term)


class _Parser:
    """Turns the syntax tree of an expression into functions of the predictions."""

    def __init__(self, text: str, binary: tuple[str, ...], regression: tuple[str, ...]) -> None:
        self._text = text
        self._binary = binary
        self._regression = regression
        self._tasks = (*binary, *regression)
        self._read: set[str] = set()
        if len(text) > _LONGEST:
            raise ConfigError(
                f"A value model of {len(text):,} characters: it may have {_LONGEST:,}."
            )
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused(f"it cannot be read ({getattr(error, 'msg', error)})") from None
        self.term = self._of(tree, 0)

    @property
    def read(self) -> tuple[str, ...]:
        return tuple(name for name in self._tasks if name in self._read)

    def _of(self, node: ast.expr, depth: int) -> _Term:
        if depth > _DEEPEST:
            raise self._refused(f"it is nested deeper than {_DEEPEST} levels")
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return self._number(number)
            case ast.Name(id=name):
                return self._task(name, self._regression, "a task that is no probability")
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
                term = self._of(inner, depth + 1)
                return (lambda of: -term(of)) if isinstance(sign, ast.USub) else term
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                combine = _OPERATORS[type(operator)]
                first, second = self._of(left, depth + 1), self._of(right, depth + 1)
                return lambda of: combine(first(of), second(of))
            case ast.Call(func=ast.Name(id=name), args=given, keywords=[]):
                return self._call(name, given, depth)
        there_is = ast.get_source_segment(self._text.strip(), node) or type(node).__name__
        raise self._refused(f"{there_is} is no part of this language")

    def _number(self, number: float) -> _Term:
        try:
            value = np.array(number, np.float64)
        except OverflowError:
            value = np.array(np.inf)
        if not np.isfinite(value):
            raise self._refused("a number in it is too large")
        return lambda of: value

    def _call(self, name: str, given: list[ast.expr], depth: int) -> _Term:
        if name == _PROBABILITY:
            if len(given) != 1 or not isinstance(given[0], ast.Name):
                raise self._refused("p(…) takes the name of one task, as in p(like)")
            return self._task(given[0].id, self._binary, "a task with a probability")
        if name not in _FUNCTIONS:
            raise self._refused(
                f"there is no function {name}{self._near(name, [*_FUNCTIONS, _PROBABILITY])}"
            )
        number, function = _FUNCTIONS[name]
        if len(given) != number:
            takes = f"{number} argument{'s' * (number > 1)}"
            raise self._refused(f"{name} takes {takes} and is given {len(given)}")
        terms = [self._of(one, depth + 1) for one in given]
        return lambda of: function(*(term(of) for term in terms))

    def _task(self, name: str, among: tuple[str, ...], kind: str) -> _Term:
        if name not in among:
            if name in self._tasks:
                right = f"p({name})" if name in self._binary else name
                raise self._refused(f"{name} is not {kind}; write {right}")
            known = [*(f"p({one})" for one in self._binary), *self._regression]
            raise self._refused(
                f"there is no task {name}{self._near(name, self._tasks)}; there are "
                f"{', '.join(known) or 'none'}"
            )
        self._read.add(name)
        column = self._tasks.index(name)
        return lambda of: of[:, column]

    def _near(self, name: str, known: Sequence[str]) -> str:
        near = difflib.get_close_matches(name, known, n=1)
        return f" (did you mean {near[0]}?)" if near else ""

    def _refused(self, problem: str) -> ConfigError:
        return ConfigError(
            f"value={self._text!r}: {problem}. It is made of numbers, + - * /, "
            f"{', '.join(_FUNCTIONS)}, p(a task) and names of tasks, such as "
            "1.0 * p(like) + 0.3 * log1p(watch_time)."
        )
