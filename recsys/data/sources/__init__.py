"""Adapters from owners' files to the interaction-log contract, by name."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import polars as pl
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.core.errors import ConfigError
from recsys.data.sources.base import Source

__all__ = ["SOURCES", "Source", "SourceEntry", "complete_options", "open_source"]


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
    "ebnerd": SourceEntry(
        "recsys.data.sources.ebnerd", "EbnerdSource", "EbnerdOptions", "ebnerd_demo"
    ),
    "globo": SourceEntry("recsys.data.sources.globo", "GloboSource", "GloboOptions", "globo"),
    "movielens": SourceEntry(
        "recsys.data.sources.movielens", "MovieLensSource", "MovieLensOptions", "ml-1m"
    ),
    "simulated": SourceEntry("recsys.data.sources.simulated", "SimulatedSource", ""),
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
    if not entry.options:
        if options:
            raise ConfigError(f"source={name} has no options, found {', '.join(options)}.")
        return source_class(data)
    options_type = getattr(module, entry.options)
    try:
        merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(options_type), options))
    except OmegaConfBaseException as error:
        reason = (error.msg or str(error)).splitlines()[0]
        known = [field.name for field in fields(options_type)]
        near = difflib.get_close_matches(str(error.full_key), known, n=1)
        listed = ", ".join(known) or "none"
        hint = f"did you mean `options.{near[0]}`?" if near else f"its options: {listed}."
        raise ConfigError(f"options.{error.full_key} of source={name}: {reason}; {hint}") from error
    return source_class(data, merged)


def complete_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of the adapter ``name``, defaults among them, without names for themselves.

    Two ways to say the same are equal here: spelt out in a file of conf/data/, or left out.

    Args:
        name: an adapter.
        options: those given, which ``open_source`` accepts.
    """
    entry = SOURCES[name]
    if not entry.options:
        return {}
    options_type = getattr(importlib.import_module(entry.module), entry.options)
    merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(options_type), options))
    return {
        key: {k: v for k, v in value.items() if k != v} if isinstance(value, dict) else value
        for key, value in cast(dict[str, Any], merged).items()
    }
