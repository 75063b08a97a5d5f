"""The folder of a sharded checkpoint: ``manifest.json``, written last, vouches for its files.

```
manifest.json   format version, step, number of ranks, size and CRC-32 of every file below
.metadata       of torch.distributed.checkpoint: every tensor, its chunks, and where they lie
__<rank>_0.distcp   what a rank has written
```
"""

from __future__ import annotations

import dataclasses
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from recsys.core.checksums import FileMark
from recsys.core.errors import ArtifactError
from recsys.core.json_files import decode_json, write_json
from recsys.core.paths import plain_name
from recsys.distributed.checkpoint.safe_pickle import load_metadata

MANIFEST = "manifest.json"
METADATA = ".metadata"
FORMAT_VERSION = 2
KIND = "manifest of a checkpoint"


class DamagedCheckpointError(ArtifactError):
    """A checkpoint that is incomplete, or not what was written; it is given what is wrong."""

    @property
    def problem(self) -> str:
        """What is wrong, without what one does about it."""
        return str(self.args[0])

    def __str__(self) -> str:
        """What is wrong, and what one does where any checkpoint will do."""
        return (
            f"{self.problem}; use another checkpoint (`checkpoint=best`, `checkpoint=last`, or a "
            "path), or train again."
        )


@dataclass(frozen=True)
class FolderManifest:
    """What a whole checkpoint consists of.

    Attributes:
        format_version: of the folder's layout.
        step: optimiser steps done.
        world_size: ranks that hold it; each has a state of its own beside the tensors.
        files: by name.
    """

    format_version: int
    step: int
    world_size: int
    files: dict[str, FileMark]

    def save(self, folder: Path) -> None:
        """Commit the checkpoint: a folder without its manifest is none."""
        write_json(folder / MANIFEST, KIND, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> FolderManifest:
        """Read it, and compare the sizes of all files and the content of ``.metadata``.

        Raises:
            ArtifactError: the checkpoint was not finished, a file is missing or of another size,
                or the layout is of another version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise DamagedCheckpointError(
                f"{folder} is no whole checkpoint: {MANIFEST}, which is written last, is not in it"
            )
        try:
            content = decode_json(KIND, path.read_bytes())
            version = content["format_version"]
            if version == FORMAT_VERSION:
                files = content.pop("files")
                files = {plain_name(name): FileMark(**one) for name, one in files.items()}
                manifest = cls(**content, files=files)
                manifest._check_sizes(folder)
                return manifest
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedCheckpointError(
                f"{path} is damaged or not a checkpoint's ({type(error).__name__}: {error})"
            ) from error
        raise ArtifactError(
            f"{folder} has format version {version}, this version of recsys reads "
            f"{FORMAT_VERSION}; use the version it was written with."
        )

    def _check_sizes(self, folder: Path) -> None:
        if METADATA not in self.files:
            raise ValueError(f"it names no {METADATA}")
        if not isinstance(self.step, int) or not isinstance(self.world_size, int):
            raise ValueError("its step or its number of processes is no number")
        for name, mark in self.files.items():
            path = folder / name
            if not path.is_file():
                raise DamagedCheckpointError(
                    f"{path} is missing though {MANIFEST} names it: the checkpoint is incomplete"
                )
            # the description is read before anybody compares the content of the others
            problem = mark.problem(path) if name == METADATA else mark.size_problem(path)
            if problem:
                raise DamagedCheckpointError(f"{path} is damaged: it {problem}")

    def check_content(self, folder: Path, rank: int = 0, num_ranks: int = 1) -> None:
        """Compare the checksums of this rank's share of the files.

        Raises:
            ArtifactError: one is not as it was written.
        """
        for name in sorted(self.files)[rank::num_ranks]:
            if problem := self.files[name].problem(folder / name):
                raise DamagedCheckpointError(f"{folder / name} is damaged: it {problem}")


class ChecksummingWriter(FileSystemWriter):
    """DCP's writer, which counts bytes and checksums while it writes.

    Attributes:
        written: what this process has written, by name; ``.metadata`` is not among it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.written: dict[str, FileMark] = {}
        self.fs = _ChecksummingFiles(self.written)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process's file.

        Raises:
            OSError: it cannot be written. The other ranks are sent no more than the exception
                itself, so that of torch, which has this one behind it, would not tell them why.
        """
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            raise reason(error) from error


class _ChecksummingFiles(FileSystem):
    def __init__(self, written: dict[str, FileMark]) -> None:
        self.written = written

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:
        """Open a file for DCP."""
        with super().create_stream(path, mode) as file:
            stream = _ChecksummingStream(file)
            yield stream
            if Path(path).suffix == ".distcp":
                self.written[Path(path).name] = FileMark(stream.size, stream.crc32)


class _ChecksummingStream(io.IOBase):
    """A file that is written from its beginning to its end."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.size = 0
        self.crc32 = 0

    def write(self, piece: Any) -> int:
        self.crc32 = zlib.crc32(piece, self.crc32)
        self.size += memoryview(piece).nbytes
        written: int = self.file.write(piece)
        return written

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        if not self.file.closed:
            self.file.flush()

    def fileno(self) -> int:
        self.file.flush()
        descriptor: int = self.file.fileno()
        return descriptor


class FolderReader(FileSystemReader):
    """DCP's reader, which unpickles nothing but descriptions of tensors."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Every tensor, its chunks, and where they lie."""
        return load_metadata(Path(self.path) / METADATA)


def reason(error: BaseException) -> BaseException:
    """What the system has said, of which torch's own errors say nothing, or the error itself."""
    one: BaseException | None = error
    while one is not None and not isinstance(one, OSError):
        one = one.__cause__ or one.__context__
    return one or error


def files_written(folder: Path, written: Mapping[str, FileMark]) -> dict[str, FileMark]:
    """What all ranks have written, and DCP's description of it."""
    return dict(written) | {METADATA: FileMark.of(folder / METADATA)}
