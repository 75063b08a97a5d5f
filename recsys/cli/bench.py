"""`recsys bench`: the benchmarks of benchmarks/, each a module with its own sizes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from types import ModuleType

from rich.table import Table

from recsys.core.composition import merge
from recsys.core.console import output_console
from recsys.core.errors import ConfigError
from recsys.core.paths import PACKAGE

#: The benchmarks lie beside the package; they are not installed with it.
DIRECTORY = PACKAGE.parent / "benchmarks"


def names() -> list[str]:
    """The benchmarks, by name."""
    if not DIRECTORY.is_dir():
        raise ConfigError(
            f"{DIRECTORY} is not there: benchmarks are run from a checkout of the repository."
        )
    return sorted(path.stem for path in DIRECTORY.glob("*.py") if not path.stem.startswith("_"))


def print_list(as_json: bool = False) -> None:
    """Print every benchmark with its description."""
    descriptions = {name: str(_load(name).DESCRIPTION) for name in names()}
    table = Table("benchmark", "what is measured", title="recsys bench <benchmark>")
    for name, description in descriptions.items():
        table.add_row(name, description)
    output_console().print(table)
    if as_json:
        output_console().print(json.dumps(descriptions))


def run(name: str, overrides: Sequence[str], as_json: bool = False) -> None:
    """Run one benchmark; with ``as_json`` the last line is one JSON object.

    Raises:
        ConfigError: there is no such benchmark, or an override does not fit its sizes.
    """
    if name not in names():
        raise ConfigError(f"there is no benchmark '{name}'; choose one of {', '.join(names())}.")
    module = _load(name)
    result = module.run(merge(module.Config, overrides))
    if as_json:
        output_console().print(json.dumps(result))


def _load(name: str) -> ModuleType:
    root = str(DIRECTORY.parent)
    if root not in sys.path:  # a benchmark may import another, also in processes of its own
        sys.path.append(root)
    module = sys.modules.get(f"benchmarks.{name}")
    if module is None:  # once, so that its functions can go to other processes
        module = _executed(name)
    if not is_dataclass(getattr(module, "Config", None)):
        raise ConfigError(
            f"{DIRECTORY / name}.py has no dataclass Config; CONTRIBUTING.md shows the form."
        )
    return module


def _executed(name: str) -> ModuleType:
    path = DIRECTORY / f"{name}.py"
    specification = importlib.util.spec_from_file_location(f"benchmarks.{name}", path)
    if specification is None or specification.loader is None:
        raise ConfigError(f"{path} cannot be loaded.")
    module = importlib.util.module_from_spec(specification)
    # Registered before it runs, so that its dataclasses can resolve their annotations.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module
