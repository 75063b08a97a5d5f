"""What a user types after a verb, ``key=value``, as Hydra is to read it.

A text is taken as it is typed: Hydra would make the number 20240131 of ``out=2024_01_31``, and the
number 1000.0 of ``name=1e3``. So what is given for a setting whose type is text goes to Hydra in
quotes. One pair of quotes around it is the user's own and no part of it; ``null`` is no text where
the setting may have none; ``${key}`` stays the value of another setting.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from recsys.core.bounds import without_none
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir

#: The one setting of Hydra itself a user may give: further folders with configuration groups.
SEARCH_PATH = "hydra.searchpath="

_QUOTES = "'\""
_BRACKETS = {"[": "]", "{": "}", "(": ")"}


def for_hydra(overrides: Sequence[str], schema: type) -> list[str]:
    """Overrides in the words of Hydra, for a configuration of ``schema``.

    Keys that no file names are let in where ``schema`` leaves the keys open.

    Raises:
        ConfigError: one is not of the form ``key=value``, or adds or removes a key.
    """
    return [_for_hydra(override, schema) for override in overrides]


def with_overrides(config: DictConfig, overrides: Sequence[str], schema: type) -> DictConfig:
    """A configuration that no file of conf/ has a part in, changed by overrides.

    Raises:
        ConfigError: as :func:`for_hydra`.
    """
    parser = OverridesParser.create()
    for override in overrides:
        parsed = parser.parse_override(_for_hydra(override, schema))
        if parsed.is_sweep_override():
            raise ConfigError(f"`{override}` has several values; give one, or a list in [ ].")
        change = parsed.value()
        for part in reversed(parsed.key_or_group.split(".")):
            change = {part: change}
        config = cast(DictConfig, OmegaConf.merge(config, change))
    return config


def split_list(text: str) -> list[str]:
    """The items of ``a,b,c`` as they are typed; commas in quotes and brackets separate none.

    >>> split_list("a, 'b,c', [d,e]")
    ['a', "'b,c'", '[d,e]']
    """
    items, start, closing = [], 0, ""
    for place, character in enumerate(text):
        if closing and character == closing[-1]:
            closing = closing[:-1]
        elif closing and closing[-1] in _QUOTES:
            continue
        elif character in _BRACKETS:
            closing += _BRACKETS[character]
        elif character in _QUOTES and not text[start:place].strip():
            closing += character
        elif character == "," and not closing:
            items.append(text[start:place].strip())
            start = place + 1
    return [*items, text[start:].strip()] if text.strip() else []


def _for_hydra(override: str, schema: type) -> str:
    _check_form(override)
    key, _, value = override.partition("=")
    if (conf_dir() / key.partition("@")[0]).is_dir():
        return f"{key}={_text(value, False)}"  # the name of a file
    hint, optional = without_none(setting_type(key, schema))
    if hint is str:
        return f"{key}={_text(value, optional)}"
    if typing.get_origin(hint) is list and typing.get_args(hint)[0] is str:
        return f"{key}={_list(value, optional)}"
    if hint == dict[str, Any]:
        return f"++{key}={value}"  # keys of it that no file names
    if hint is _OPEN:
        # types are known to whoever reads the field: text becomes a number there, not the reverse
        return f"++{key}={_list(value, True)}"
    return override


#: The type of what lies below a field of type ``dict[str, Any]``.
_OPEN = object()


def setting_type(key: str, schema: type) -> Any:
    """The type of the setting ``key``; None where there is no such setting."""
    hint: Any = schema
    for part in key.split("."):
        hint, _ = without_none(hint)
        if hint is _OPEN or hint == dict[str, Any]:
            hint = _OPEN
        elif typing.get_origin(hint) is dict:
            hint = typing.get_args(hint)[1]
        elif typing.get_origin(hint) is list:
            if not part.isdecimal():
                raise ConfigError(f"`{key}` is in a list; give the list whole, in [ ].")
            hint = typing.get_args(hint)[0]
        else:
            hints = typing.get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
            hint = hints.get(part)
    return hint


def _list(value: str, optional: bool) -> str:
    """A list of texts, each quoted; what is no list as one text, for Hydra to say so."""
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_text(item, False) for item in split_list(value[1:-1]))}]"
    return value if value.startswith("{") else _text(value, optional)


def without_quotes(value: str) -> str:
    """A text without the user's own pair of quotes around it."""
    quoted = len(value) > 1 and value[0] in _QUOTES and value[-1] == value[0]
    return value[1:-1] if quoted else value


def _text(value: str, optional: bool) -> str:
    """What was typed, between quotes of Hydra."""
    if optional and value == "null":
        return value
    return QuotedString(without_quotes(value), Quote.single).with_quotes()


def _check_form(override: str) -> None:
    if override.startswith(("+", "~")):
        raise ConfigError(
            f"`{override}`: keys are fixed, they can be neither added (+) nor removed (~); "
            "write `key=value`."
        )
    if re.match(r"hydra\b", override) and not override.startswith(SEARCH_PATH):
        raise ConfigError(
            f"`{override}`: of Hydra's own settings only `{SEARCH_PATH}[folder]` can be given."
        )
    if not re.fullmatch(r"\w[\w.@:/-]*=.*", override, re.DOTALL):
        is_file = override.lower().endswith((".yaml", ".yml"))
        hint = f"; a description is given as `data={override}`" * is_file
        raise ConfigError(f"`{override}` is not of the form `key=value`{hint}.")
