"""Adapters from owners' files to the interaction-log contract, by name."""

from __future__ import annotations

import difflib
import importlib
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import polars as pl
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.core.errors import ConfigError
from recsys.core.schemas import instantiate, structured
from recsys.data.sources.base import Source

__all__ = ["SOURCES", "Source", "SourceEntry", "complete_options", "open_source", "takes_option"]


Options = TypeVar("Options")

#: Options that say what of a table, or of a simulated log, is read, and in ``path`` where it lies.
TABLES = ("items", "users", "simulation")
#: Which state of a table is read; kept with the input files.
SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class SourceEntry:
    """Where an adapter lies; it is imported when it is used.

    Attributes:
        module: its module.
        source: its class, made from a path and its options.
        options: the dataclass of its options.
        default_path: where its files lie below the data folder; None where only the user knows.
    """

    module: str
    source: str
    options: str
    default_path: str | None = None


SOURCES: dict[str, SourceEntry] = {
    "log": SourceEntry("recsys.data.sources.log", "LogSource", "LogOptions"),
    "kuairand": SourceEntry(
        "recsys.data.sources.kuairand", "KuaiRandSource", "KuaiRandOptions", "kuairand_pure"
    ),
    "ebnerd": SourceEntry("recsys.data.sources.ebnerd", "EbnerdSource", "OtherDays", "ebnerd_demo"),
    "globo": SourceEntry("recsys.data.sources.globo", "GloboSource", "GloboOptions", "globo"),
    "movielens": SourceEntry(
        "recsys.data.sources.movielens", "MovieLensSource", "MovieLensOptions", "ml-1m"
    ),
    "simulated": SourceEntry("recsys.data.sources.simulated", "SimulatedSource", "OtherDays"),
    "ledger": SourceEntry("recsys.data.sources.ledger", "LedgerSource", "LedgerOptions"),
}


def open_source(
    name: str, data: Path | pl.DataFrame | pl.LazyFrame, options: dict[str, Any]
) -> Source:
    """The adapter ``name`` on the files at a path; of ``log`` also on a frame.

    Raises:
        ConfigError: there is no such adapter, or it has no such option.
    """
    if name not in SOURCES:
        raise ConfigError(f"source={name} is not known; the sources are {', '.join(SOURCES)}.")
    entry = SOURCES[name]
    module = importlib.import_module(entry.module)
    source_class = getattr(module, entry.source)
    return source_class(data, _read_options(name, getattr(module, entry.options), options))


def takes_option(name: str, option: str) -> bool:
    """Whether the adapter ``name`` has an option."""
    entry = SOURCES[name]
    options_type = getattr(importlib.import_module(entry.module), entry.options)
    return option in {field.name for field in fields(options_type)}


def complete_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the adapter ``name`` that say something, defaults among them.

    Two ways to say the same are equal here: spelt out in a file of conf/data/, or left out. Where
    files lie says nothing of what is in them.

    Args:
        name: an adapter.
        options: those given, which ``open_source`` accepts.
    """
    entry = SOURCES[name]
    options_type = getattr(importlib.import_module(entry.module), entry.options)
    complete = asdict(_read_options(name, options_type, options))
    complete.pop(SNAPSHOT, None)
    said = {
        key: {k: v for k, v in value.items() if k != v} if isinstance(value, dict) else value
        for key, value in complete.items()
    }
    for key in TABLES:
        table = {k: v for k, v in (said.get(key) or {}).items() if v not in (None, [])}
        said[key] = table | {"path": True} if "path" in table else table
    return {key: value for key, value in said.items() if value not in (None, {})}


def _read_options(name: str, options_type: type[Options], options: dict[str, Any]) -> Options:
    """Options as the dataclass that says what they may be."""
    try:
        merged = OmegaConf.merge(structured(options_type), options)
        return instantiate(options_type, cast(DictConfig, merged), "options.")
    except (OmegaConfBaseException, OverflowError) as error:
        reason = (getattr(error, "msg", None) or str(error)).splitlines()[0]
        key = str(getattr(error, "full_key", None) or _misfit(options_type, options))
        known = [field.name for field in fields(options_type)]  # type: ignore[arg-type]
        near = difflib.get_close_matches(key, known, n=1)
        listed = ", ".join(known) or "none"
        hint = f"; did you mean `options.{near[0]}`?" if near else f"; its options: {listed}."
        hint = "." if re.split(r"[.\[]", key)[0] in known else hint
        raise ConfigError(f"options.{key} of source={name}: {reason.rstrip('.')}{hint}") from error


def _misfit(options_type: type[Options], options: dict[str, Any]) -> str:
    """The option that is of another kind than the schema's; the library names none of them."""
    leaves = OmegaConf.to_container(OmegaConf.create(options), resolve=False)
    for path, change in _leaves(cast(dict[str, Any], leaves)):
        try:
            OmegaConf.merge(structured(options_type), change)
        except OmegaConfBaseException:
            return path
    return ""


def _leaves(options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each option by itself, by its path, and before it the groups that it lies in."""
    found: list[tuple[str, dict[str, Any]]] = []
    for key, value in options.items():
        if isinstance(value, dict) and value:
            found += [(f"{key}.{path}", {key: inner}) for path, inner in _leaves(value)]
        found.append((str(key), {key: value}))
    return found
