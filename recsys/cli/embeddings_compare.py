"""`recsys embeddings compare`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from recsys.core.composition import compose
from recsys.core.console import message_console, output_console, text_table
from recsys.core.errors import ConfigError
from recsys.core.folders import check_file
from recsys.embeddings.comparison import CompareConfig, compare
from recsys.reports.embeddings import MADE_BY, as_json, sentences, tables, write_page
from recsys.reports.page import is_page_of

#: How a setting begins; an address of Redis may have a `=` too.
_SETTING = re.compile(r"[a-z_]+=")
_STORES = ("a", "b")


def configure(overrides: Sequence[str]) -> CompareConfig:
    """Compose conf/embeddings_compare.yaml; words that are no setting are the stores."""
    stores = [given for given in overrides if not _SETTING.match(given)]
    settings = [given for given in overrides if _SETTING.match(given)]
    if len(stores) > len(_STORES):
        raise ConfigError(
            f"`{stores[2]}` is one store too many; two are compared: recsys embeddings compare A B."
        )
    named = [f"{name}={store}" for name, store in zip(_STORES, stores, strict=False)]
    return compose("embeddings_compare", CompareConfig, [*named, *settings])


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Compare, print tables, and write the page that was asked for."""
    config = configure(overrides)
    out = None if config.out is None else Path(config.out)
    if out is not None:
        inputs = [config.a, config.b, *filter(None, [config.dataset])]
        check_file(out, partial(is_page_of, made_by=MADE_BY), inputs)
    found = compare(config)
    console = output_console()
    for title, rows in tables(found).items():
        console.print(text_table(title, rows))
    for sentence in sentences(found):
        console.print(sentence)
    if out is not None:
        write_page(found, out)
        message_console().print(f"Page: {out}")
    if as_object:
        console.print(json.dumps(as_json(found)))
