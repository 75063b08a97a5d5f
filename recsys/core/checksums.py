"""Whether files are what was written: their sizes, which cost nothing, and their checksums."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

#: Bytes of a file that are in memory at once.
_PIECE = 1 << 22

#: In a copy of a folder at a URL that has only what was asked for so far: what that folder has.
COPY_NOTE = ".recsys_copy.json"


@dataclass(frozen=True)
class FileMark:
    """A file as it was written; a manifest beside it keeps it.

    Attributes:
        bytes: its size.
        crc32: CRC-32 of its content, which finds what disks and copies do, not what people do.
    """

    bytes: int
    crc32: int

    @classmethod
    def of(cls, path: Path) -> FileMark:
        """The mark of a file that lies there."""
        return cls(path.stat().st_size, _crc32(path))

    def size_problem(self, path: Path) -> str | None:
        """What is wrong with a file by its size alone; None where nothing is."""
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        return None if size == self.bytes else f"has {size} bytes, {self.bytes} were written"

    def problem(self, path: Path) -> str | None:
        """What is wrong with a file, which is read whole; None where nothing is."""
        if problem := self.size_problem(path):
            return problem
        return None if _crc32(path) == self.crc32 else "is not what was written (another CRC-32)"


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def is_partial(folder: Path) -> bool:
    """Whether a folder is a copy that may lack files which lie at its URL."""
    return (folder / COPY_NOTE).is_file()
