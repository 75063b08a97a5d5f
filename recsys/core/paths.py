"""Where the files lie that belong to the package but are no Python modules.

In a checkout ``recsys/conf`` and ``recsys/requirements`` are links to the folders of the same name
beside the package; an installed wheel holds copies.
"""

from __future__ import annotations

from pathlib import Path

#: The package, and the checkout around it (or ``site-packages``).
PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """The Hydra configuration tree."""
    return (PACKAGE / "conf").resolve()


def requirements_dir() -> Path:
    """The locks: exact versions, one file per supported torch."""
    return (PACKAGE / "requirements").resolve()
