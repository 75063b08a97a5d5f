"""The list of the files of a folder at a URL, ``recsys_folder.json``, and folders without one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from recsys.core.errors import DataError
from recsys.core.json_files import decode_json, encode_json
from recsys.core.location import RemotePath, reached

LIST_FILE = "recsys_folder.json"

KIND = "list of the files of a folder"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFile:
    """A file of a folder at a URL.

    Attributes:
        object: its name there.
        bytes: its size.
        digest: SHA-256 of its content; of a folder without a list, what its store says of it.
        link: for a link, the name beside it that it leads to; it has no object.
    """

    object: str
    bytes: int
    digest: str
    link: str | None = None

    @property
    def has_checksum(self) -> bool:
        """Whether the digest is one of the content."""
        return _SHA256.fullmatch(self.digest) is not None


@dataclass(frozen=True)
class FolderList:
    """What ``recsys_folder.json`` says.

    Attributes:
        whole: once every file is there.
        files: by their name in the folder.
    """

    whole: bool
    files: Mapping[str, StoredFile]


def read_list(place: RemotePath) -> FolderList | None:
    """The list of a folder; None where it has none.

    Raises:
        DataError: it is damaged.
    """
    path = place / LIST_FILE
    if not path.is_file():
        return None
    try:
        with path.open() as file, reached(path):
            content = decode_json(KIND, file.read())
        files = {inside(name): StoredFile(**one) for name, one in content["files"].items()}
        for one in files.values():
            inside(one.link or one.object)
            if one.link is None and not one.has_checksum:
                raise ValueError("a file has no SHA-256")
        return FolderList(content["whole"], files)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is damaged or no {KIND} of this release ({error}); upload the folder again "
            "to another place."
        ) from error


def write_list(place: RemotePath, listed: FolderList) -> None:
    """Write the list of a folder, in one step."""
    content = encode_json(
        KIND,
        {
            "whole": listed.whole,
            "files": {name: asdict(one) for name, one in sorted(listed.files.items())},
        },
    )
    path = place / LIST_FILE
    with reached(path), path.open("wb") as file:
        file.write(content)


def without_list(place: RemotePath) -> dict[str, StoredFile]:
    """The files of a folder that has no list, told apart by size and time of change."""
    found = {}
    for path in place.rglob("*"):
        name, stat = path.relative_to(place).as_posix(), path.stat()
        signs = hashlib.sha256(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
        found[inside(name)] = StoredFile(name, stat.st_size, f"listed-{signs}")
    return found


def inside(name: str) -> str:
    """A name that stays in its folder.

    Raises:
        ValueError: it leads out of it.
    """
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"it names {name[:80]!r}, which is no file of its folder")
    return name
