"""`recsys health`: whether the installation is whole, without importing it."""

from __future__ import annotations

import importlib.util

from recsys.core.errors import InstallationError
from recsys.core.installation import problems, read_environment
from recsys.core.version import VERSION

#: Packages without which nothing is trained or served.
_NEEDED = ("torch", "numpy", "polars", "lightning", "torchrec", "fbgemm_gpu")


def run() -> None:
    """Look for packages and compare their versions; nothing is imported.

    Raises:
        InstallationError: one is missing, or the versions do not fit together.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InstallationError(
            f"{', '.join(missing)} is not installed; `recsys doctor` says more."
        )
    if found := problems(read_environment()):
        raise InstallationError(f"{' '.join(found)} `recsys doctor` says more.")
    print(f"recsys {VERSION} is installed whole.")
