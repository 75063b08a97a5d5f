"""Frozen dataclasses as schemas of OmegaConf.

OmegaConf makes nodes of a frozen dataclass read-only, and files and overrides could not be merged
into them. A schema is therefore its mutable twin, and what comes out is built anew from the
frozen classes, whose own checks run then.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from recsys.core.bounds import UNIONS, refuse_misfits, without_none

Schema = TypeVar("Schema")


def structured(schema: type | object) -> DictConfig:
    """A node with the fields, types and defaults of a dataclass (or the values of an instance)."""
    if isinstance(schema, type):
        return OmegaConf.structured(_twin(schema))
    return OmegaConf.structured(_twin_instance(schema))


def instantiate(schema: type[Schema], config: DictConfig, place: str = "") -> Schema:
    """The dataclass that a node of :func:`structured` describes; interpolations are resolved.

    Args:
        schema: the dataclass.
        config: the node.
        place: what comes before the node's keys in a sentence, such as ``options.``.

    Raises:
        ConfigError: a value that its type does not mean.
    """
    built: Schema = _build(schema, OmegaConf.to_container(config, resolve=True), place)
    return built


@functools.cache
def _twin(schema: type) -> type:
    hints = typing.get_type_hints(schema)
    twin_fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(schema):
        settings: dict[str, Any] = {}
        if field.default is not dataclasses.MISSING:
            default = field.default
            settings["default_factory"] = functools.partial(_twin_instance, default)
        elif field.default_factory is not dataclasses.MISSING:
            factory = field.default_factory
            settings["default_factory"] = functools.partial(_call_and_twin, factory)
        twin_fields.append(
            (field.name, _twin_hint(hints[field.name]), dataclasses.field(**settings))
        )
    return dataclasses.make_dataclass(schema.__name__, twin_fields, kw_only=True)


def _twin_hint(hint: Any) -> Any:
    """A type with every dataclass in it replaced by its twin.

    Text is anything here, for OmegaConf would make "1000.0" of a file's 1e3; whatever is no text
    is refused when the frozen classes are built.
    """
    if without_none(hint)[0] is str:
        return Any
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _twin(hint)
    arguments = typing.get_args(hint)
    if not arguments:
        return hint
    twins = tuple(_twin_hint(argument) for argument in arguments)
    origin = typing.get_origin(hint)
    return typing.Union[twins] if origin in UNIONS else origin[twins]  # noqa: UP007


def _twin_instance(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        content = {
            f.name: _twin_instance(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
        return _twin(type(value))(**content)
    if isinstance(value, (list, tuple)):
        return type(value)(_twin_instance(item) for item in value)
    if isinstance(value, dict):
        return {key: _twin_instance(item) for key, item in value.items()}
    return value


def _call_and_twin(factory: Any) -> Any:
    return _twin_instance(factory())


def _build(hint: Any, value: Any, place: str) -> Any:
    """``value``, of plain lists and dictionaries, as an instance of the type ``hint``."""
    hint, _ = without_none(hint)
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        hints = typing.get_type_hints(hint)
        built = {name: _build(hints[name], item, f"{place}{name}.") for name, item in value.items()}
        refuse_misfits(hint, built, place)
        return hint(**built)
    if isinstance(value, list) and arguments:
        of = place.removesuffix(".")
        items = [_build(arguments[0], item, f"{of}[{i}].") for i, item in enumerate(value)]
        return tuple(items) if typing.get_origin(hint) is tuple else items
    if isinstance(value, dict) and arguments:
        return {key: _build(arguments[1], item, f"{place}{key}.") for key, item in value.items()}
    return value
