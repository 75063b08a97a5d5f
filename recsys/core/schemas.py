"""Frozen dataclasses as schemas of OmegaConf.

OmegaConf makes nodes of a frozen dataclass read-only, and files and overrides could not be merged
into them. A schema is therefore its mutable twin, and what comes out is built anew from the
frozen classes, whose own checks run then.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

Schema = TypeVar("Schema")

_UNIONS = (typing.Union, types.UnionType)


def structured(schema: type | object) -> DictConfig:
    """A node with the fields, types and defaults of a dataclass (or the values of an instance)."""
    if isinstance(schema, type):
        return OmegaConf.structured(_twin(schema))
    return OmegaConf.structured(_twin_instance(schema))


def instantiate(schema: type[Schema], config: DictConfig) -> Schema:
    """The dataclass that a node of :func:`structured` describes; interpolations are resolved."""
    built: Schema = _build(schema, OmegaConf.to_container(config, resolve=True))
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
    """A type with every dataclass in it replaced by its twin."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _twin(hint)
    arguments = typing.get_args(hint)
    if not arguments:
        return hint
    twins = tuple(_twin_hint(argument) for argument in arguments)
    origin = typing.get_origin(hint)
    return typing.Union[twins] if origin in _UNIONS else origin[twins]  # noqa: UP007


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


def _build(hint: Any, value: Any) -> Any:
    """``value``, of plain lists and dictionaries, as an instance of the type ``hint``."""
    if value is None:
        return None
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return hint(**{name: _build(hints[name], item) for name, item in value.items()})
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in _UNIONS:
        [inner] = [a for a in arguments if a is not type(None)][:1]
        return _build(inner, value) if isinstance(value, (dict, list)) else value
    if origin is tuple:
        return tuple(_build(arguments[0], item) for item in value)
    if origin is list:
        return [_build(arguments[0], item) for item in value]
    if origin is dict:
        return {key: _build(arguments[1], item) for key, item in value.items()}
    return value
