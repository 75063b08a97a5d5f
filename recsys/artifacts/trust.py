"""Which artifacts a user believes: a list of the user's own, not beside the artifact.

Loading an artifact runs code that came with it, and checksums in its own folder say nothing about
who made it. So the user has a text file with a line per artifact that may be loaded: the SHA-256 of
its ``manifest.json``, which has the checksums of all other files, and a remark. `recsys export` and
`recsys trust` write such lines; to take one back, delete it.
"""

from __future__ import annotations

import fcntl
import os
from hashlib import sha256
from pathlib import Path

from recsys.core.console import message_console
from recsys.core.durable import sync_file
from recsys.core.errors import ArtifactError, ConfigError

#: Names the list, where it is not to lie among the user's settings.
VARIABLE = "RECSYS_TRUSTED_ARTIFACTS"


def trusted_list() -> Path:
    """Where the user's list lies, which need not be there.

    Raises:
        ConfigError: this user has no home, and nothing says where else.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given)
    try:
        settings = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"This user has no home for the list of trusted artifacts; set {VARIABLE} to a file."
        ) from error
    return Path(settings) / "recsys" / "trusted_artifacts"


def require_trusted(folder: Path, manifest: bytes) -> None:
    """Refuse an artifact that is not in the user's list.

    Args:
        folder: the artifact.
        manifest: what its ``manifest.json`` holds.

    Raises:
        ArtifactError: it is not.
    """
    try:
        path = trusted_list()
        known = sha256(manifest).hexdigest() in _listed(path)
        where = str(path)
    except ConfigError:
        known, where = False, f"none is set by {VARIABLE}"
    if not known:
        raise ArtifactError(
            f"{folder} is not among the artifacts that you have exported or trusted (your list: "
            f"{where}), and loading it runs code that came with it. If you know who made it and "
            f"how it came here: `recsys trust artifact={folder}` adds it to the list, trust=true "
            "loads it this time; see docs/export.md."
        )


def remember(manifest: bytes, remark: str) -> Path:
    """Add an artifact to the user's list.

    Args:
        manifest: what its ``manifest.json`` holds.
        remark: what the user may want to know of it later.

    Returns:
        The list.

    Raises:
        ConfigError: there is no place for a list.
        OSError: it cannot be written.
    """
    path = trusted_list()
    path.parent.mkdir(parents=True, exist_ok=True)
    checksum = sha256(manifest).hexdigest()
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if checksum not in _listed(path):
            file.seek(0)
            ended = file.read()[-1:] in (b"", b"\n")
            line = f"{checksum} {' '.join(remark.split())}\n"
            file.write(("" if ended else "\n").encode() + line.encode(errors="replace"))
            sync_file(file)
    return path


def remember_own(folder: Path, manifest: bytes) -> None:
    """Add an artifact that was just exported; where that cannot be, say so and go on."""
    try:
        remember(manifest, f"exported to {folder.resolve()}")
    except (ConfigError, OSError) as error:
        message_console().print(
            f"{folder} could not be added to your list of trusted artifacts ({error}); set "
            f"{VARIABLE} to a file that can be written to, or load it with trust=true."
        )


def _listed(path: Path) -> set[str]:
    """The checksums of a list; none where it is not there or cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {line.split()[0].lower() for line in lines if line.strip()}
