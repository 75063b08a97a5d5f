"""From conf/ and command-line overrides to a frozen dataclass, by Hydra's compose API.

Strict: an unknown key, a wrong type or an unknown choice is one sentence that names it and, where
there is one, the nearest key.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import re
import typing
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml  # type: ignore[import-untyped]
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.core.bounds import without_none
from recsys.core.durable import replace_file
from recsys.core.errors import ConfigError
from recsys.core.group_files import with_group_files
from recsys.core.overrides import for_hydra, setting_type, with_overrides
from recsys.core.paths import conf_dir
from recsys.core.schemas import instantiate, structured

#: How a file of :func:`save` begins, before the checksum of the lines below.
_CHECKSUM = "# crc32 "

Schema = TypeVar("Schema")


def compose(name: str, schema: type[Schema], overrides: Sequence[str]) -> Schema:
    """Compose ``conf/<name>.yaml`` with ``overrides`` into an instance of ``schema``.

    The file's defaults list begins with ``<name>_schema``, which stands for ``schema``. Keys below
    a field of type ``dict[str, Any]`` are free here; whoever reads the field checks them. What is
    chosen of a group may be a file of the user's own (:mod:`recsys.core.group_files`).

    Raises:
        ConfigError: an override or a file does not fit ``schema``.
    """
    ConfigStore.instance().store(f"{name}_schema", structured(schema))
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            chosen = with_group_files(overrides, schema)
            config = hydra_compose(name, overrides=for_hydra(chosen, schema))
        files = [given.partition("=")[2] for given in overrides if given not in chosen]
        return _to_dataclass(config, schema, files)
    except (HydraException, OmegaConfBaseException, AssertionError) as error:
        raise ConfigError(_sentence(error, schema, overrides)) from error


def load(path: Path, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Read a resolved configuration written by :func:`save`, changed by ``key=value`` overrides.

    Raises:
        ConfigError: the file is no configuration of this kind, it holds an interpolation, or an
            override does not fit it.
    """
    with _named(path, schema, overrides):
        config = cast(DictConfig, OmegaConf.merge(structured(schema), as_written(path)))
        return _to_dataclass(with_overrides(config, overrides, schema), schema)


def load_part(path: Path, schema: type) -> dict[str, Any]:
    """What a file of the user's own says of ``schema``, whose other fields keep their defaults.

    Values that are still ``???`` stay so: whoever composes with it may give them.

    Raises:
        ConfigError: the file cannot be read, or something in it does not fit.
    """
    with _named(path, schema):
        content = OmegaConf.to_container(as_written(path))
        if not isinstance(content, dict):
            raise ConfigError(f"{path} has no settings; they are lines such as `key: value`.")
        filled = cast(DictConfig, OmegaConf.merge(structured(schema), without_missing(content)))
        try:
            _to_dataclass(filled, schema)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        return cast(dict[str, Any], content)


@contextmanager
def _named(path: Path, schema: type, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Say of what is wrong with a file that it is the file's."""
    try:
        yield
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path} is damaged: it is no YAML ({problem}).") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {_sentence(error, schema, overrides)}") from error


def without_missing(content: Any) -> Any:
    """Nested settings without those that are yet to be given, whose value is ``???``."""
    if isinstance(content, dict):
        return {key: without_missing(one) for key, one in content.items() if one != MISSING}
    return content


def missing_settings(content: Any, prefix: str = "") -> list[str]:
    """Keys of nested settings that are yet to be given."""
    if isinstance(content, dict):
        parts = (missing_settings(one, f"{prefix}{key}.") for key, one in content.items())
        return [key for part in parts for key in part]
    return [prefix.removesuffix(".")] if content == MISSING else []


def as_written(path: Path) -> Any:
    """What a file holds that may come from somebody else: of it nothing is resolved.

    ``${oc.env:NAME}`` would put the reader's secrets into what is made of the file, and an alias
    stand for more text than memory can hold.

    Raises:
        ConfigError: it has an interpolation or an alias.
        YAMLError, OSError, ValueError: it cannot be read.
    """
    text = _checked(path)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{path}, line {event.start_mark.line + 1}: an alias, which stands for more than "
                "one can see; write out what it means."
            )
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise ConfigError(
                f"{path}, line {event.start_mark.line + 1}: `{event.value[:80]}` is an "
                "interpolation; in a file that may come from somebody else nothing is resolved: "
                "write the value itself."
            )
    return OmegaConf.load(io.StringIO(text))


def merge(schema: type[Schema], overrides: Sequence[str]) -> Schema:
    """The defaults of ``schema`` changed by ``key=value`` overrides; no file is read.

    Raises:
        ConfigError: an override does not fit ``schema``.
    """
    try:
        return _to_dataclass(with_overrides(structured(schema), overrides, schema), schema)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_sentence(error, schema, overrides)) from error


def save(config: object, path: Path) -> None:
    """Write a configuration dataclass as YAML, whole or not at all, under its checksum.

    Half of one could be read too: what is missing would have its default.
    """
    content = to_yaml(config).encode()
    head = f"{_CHECKSUM}{zlib.crc32(content):08x}; remove this line after a change by hand\n"
    replace_file(path, head.encode() + content)


def _checked(path: Path) -> str:
    """The text of a file that :func:`save` has written, or that somebody has changed since."""
    written = path.read_bytes()
    head, _, content = written.partition(b"\n")
    is_marked = head.startswith(_CHECKSUM.encode())
    if not (content if is_marked else written).strip():
        raise ConfigError(f"{path} is damaged: it is empty; restore it from a copy.")
    if is_marked and head[len(_CHECKSUM) :][:8] != b"%08x" % zlib.crc32(content):
        raise ConfigError(
            f"{path} is damaged (its checksum is not that of its content); restore it from a "
            "copy. If it was changed on purpose, remove its first line."
        )
    return written.decode()


def to_yaml(config: object) -> str:
    """A configuration dataclass as YAML text."""
    return OmegaConf.to_yaml(structured(config))


def _to_dataclass(config: Any, schema: type[Schema], files: Sequence[str] = ()) -> Schema:
    """The dataclass; ``files`` of the user's own may say what is missing."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        places = " or ".join(["the command", *files])
        raise ConfigError(f"`{missing[0]}=…` is needed and has no default; add it to {places}.")
    return instantiate(schema, config)


def _sentence(error: BaseException, schema: type, overrides: Sequence[str]) -> str:
    """What is wrong, in one sentence: the key, where it was given, and the nearest known key."""
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, MissingConfigException) and link.options is not None:
            group, _, choice = str(link.missing_cfg_file).rpartition("/")
            options = ", ".join(link.options)
            return f"there is no choice '{choice}' for `{group}`; choose one of {options}."
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        return (
            f"`{error.override}` cannot be read; a value with special characters goes in quotes: "
            f"\"{key}='{value}'\"."
        )
    place = _place(chain, overrides)
    no_group = re.match(r"Could not override '([^']+)'", str(error))
    if no_group:
        return _unknown_key(no_group[1], schema, place)
    for link in reversed(chain):
        unknown = re.match(r"Key '([^']+)' (?:not in|is not in)", str(link))
        if unknown and isinstance(link, OmegaConfBaseException):
            return _unknown_key(str(link.full_key or unknown[1]), schema, place)
    for link in reversed(chain):
        if isinstance(link, OmegaConfBaseException):
            problem = (link.msg or str(link)).splitlines()[0].rstrip(".")
            if "is not a ListConfig" in problem:
                problem = f"it takes a list; write `{link.full_key}=[value]`"
            return f"`{link.full_key}`{place}: {problem}."
    problem = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if "root: NoneType" in problem:  # which is all that is said of a setting below null
        for override in overrides:
            parent = override.partition("=")[0].rpartition(".")[0]
            hint, may_be_none = without_none(setting_type(parent, schema))
            if may_be_none and dataclasses.is_dataclass(hint):
                return (
                    f"`{override}`: `{parent}` is null in this configuration, so nothing in it can "
                    "be set; choose a configuration that has it."
                )
    return f"{problem}{place}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # Hydra does not name the cause of what a file has that the schema has not
        of_hydra = error.__context__ if isinstance(error, HydraException) else None
        error = error.__cause__ or of_hydra


def _place(chain: Sequence[BaseException], overrides: Sequence[str]) -> str:
    """Where the offending value was given: an override or a file of conf/."""
    text = str(chain[0])
    for override in overrides:
        key = override.split("=", 1)[0]
        if override in text or f"'{key}'" in text:
            return f" (given as `{override}`)"
    file = re.match(r"In '([^']+)'", text)
    return f" (in conf/{file[1]}.yaml)" if file else ""


def _unknown_key(key: str, schema: type, place: str) -> str:
    near = _nearest(key, list(_known_keys(schema)))
    hint = f"; did you mean `{near}`?" if near else "."
    return f"unknown key `{key}`{place}{hint}"


def _nearest(key: str, known: Sequence[str]) -> str | None:
    """The key the user may have meant: first among its siblings, then anywhere."""
    group, _, leaf = key.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == group]
    for names, cutoff in ((siblings, 0.6), (known, 0.8)):
        by_leaf = {name.rpartition(".")[2]: name for name in reversed(names)}
        matches = difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=cutoff)
        if matches:
            return by_leaf[matches[0]]
    return None


def _known_keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Every key of a schema, outermost first."""
    hints = typing.get_type_hints(schema)
    for name in hints:
        yield f"{prefix}{name}"
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            yield from _known_keys(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
