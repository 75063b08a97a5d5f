"""Where the files lie that belong to the package but are no Python modules, and names of files.

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


def plain_name(name: object) -> str:
    """The name of a file beside the description that names it.

    Raises:
        ValueError: it leads somewhere else, as a description made by somebody else may.
    """
    if not isinstance(name, str) or name in ("", "..") or Path(name).name != name or "\0" in name:
        raise ValueError(f"it names {str(name)[:80]!r}, which is no file of its folder")
    return name


def requirements_dir() -> Path:
    """The locks: exact versions, one file per supported torch."""
    return (PACKAGE / "requirements").resolve()
