"""Where data lies: folders that are looked for, and URLs in the place of paths.

``s3://bucket/key``, ``gs://bucket/key`` and ``hdfs://host:port/path`` are opened by the file
systems that come with Arrow, ``file://`` is a path. Credentials come from where the owners' own
tools find them (environment, profile, role of the machine) and never from a URL, a setting or a
file of ours. Whoever takes a path from a user asks :func:`located`; whoever needs whole folders on
the disk asks ``recsys.core.mirror``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

from recsys.core.errors import ConfigError, DataError
from recsys.core.secrets import mask_address

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileInfo, FileSystem

ENVIRONMENT_VARIABLE = "RECSYS_DATA_DIR"
DEFAULT_FOLDER = "data"

SCHEMES = ("s3", "gs", "hdfs")
_FILE = "file"
#: Of a table that a catalog of Iceberg knows; nothing lies at such a URL itself.
TABLE_SCHEME = "iceberg"

#: How errors of stores are told from those of damaged files, which Arrow raises likewise.
_OF_STORES = ("AWS Error", "google::cloud", "HDFS", "libhdfs", "libjvm")
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|TOO_SKEWED|TooSkewed|EXPIRED|UNAUTHENTICATED|"
    r"PERMISSION_DENIED|UNRECOGNIZED_CLIENT|code 40[13]|credentials"
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|bucket does not exist")
_UNREACHED = re.compile(r"NETWORK_CONNECTION|UNAVAILABLE|[Cc]ould not (?:connect|resolve)|SERVICE_")
#: Bytes that are read ahead of what is read from the beginning to the end.
_AHEAD = 1 << 22
#: How long Google's client tries again; its own default is a quarter of an hour.
_PATIENCE = timedelta(seconds=60)


def find_data_dir(data_dir: str | None, relative: str) -> Path:
    """The folder of a data set: under ``data_dir``, else ``RECSYS_DATA_DIR``, else ``./data``.

    Args:
        data_dir: what the user configured as ``data_dir=``, if anything.
        relative: path of the data set below it; an absolute path stands for itself.

    Returns:
        The path, whether it exists or not: only the source knows what to say when it does not.
    """
    root = data_dir or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_FOLDER
    return Path(root) / relative


def find_path(data_dir: str | None, path: str) -> Path:
    """A file or folder the user names: a URL, as found, else below the folder of data sets.

    Args:
        data_dir: see :func:`find_data_dir`.
        path: as the user wrote it.

    Raises:
        ConfigError: as :func:`located`.
    """
    if "://" in path:
        return located(path)
    return Path(path) if Path(path).exists() else find_data_dir(data_dir, path)


def is_url(place: Path | str) -> bool:
    """Whether a place is one that is reached over the network.

    >>> [is_url(place) for place in ("s3://logs/days", "logs/days", "redis://host")]
    [True, False, False]
    """
    return isinstance(place, RemotePath) or str(place).partition("://")[0] in SCHEMES


def located(place: Path | str) -> Path:
    """The place that a setting names: a path, or what lies at a URL.

    Raises:
        ConfigError: the URL has a password or a query in it, or names no place.
    """
    text = str(place)
    if isinstance(place, RemotePath) or "://" not in text:
        return Path(place) if isinstance(place, str) else place
    problem = url_problem(text)
    if problem is not None:
        raise ConfigError(f"{shown(text)} {problem}.")
    parts = urlsplit(text)
    if parts.scheme == _FILE:
        return Path(url2pathname(parts.path))
    if parts.scheme == "hdfs" and not parts.netloc:
        return RemotePath(f"hdfs://default{parts.path}")
    return RemotePath(text)


def url_problem(text: str) -> str | None:
    """What is wrong with a URL, in words that its name stands before; None where nothing is."""
    parts = urlsplit(text)
    if parts.scheme not in (*SCHEMES, _FILE, TABLE_SCHEME):
        return f"is of no kind that is read; a URL begins with {', '.join(SCHEMES)} or {_FILE}"
    if parts.query or ":" in parts.netloc.rpartition("@")[0] or _is_key(parts.scheme, parts.netloc):
        return (
            "has a password or a query, which would be written where a path is; leave it out: "
            "credentials come from the environment, a profile or the machine's role"
        )
    if parts.scheme == _FILE and parts.netloc not in ("", "localhost"):
        return "names another machine; a file of this one is file:///path"
    if parts.scheme in ("s3", "gs") and not parts.netloc:
        return "names no bucket"
    return None


def shown(place: Path | str) -> str:
    """A place for a person or a file: of a URL neither a user nor a query.

    >>> shown("s3://key:secret@bucket/log?Signature=12")
    's3://***@bucket/log'
    """
    text = str(place)
    return mask_address(text.partition("?")[0]) if "://" in text else text


class RemotePath(PosixPath):
    """What lies at a URL: of a ``Path`` what those do who read.

    Everything that follows from the name alone is a path's own; its parts are the scheme, the
    bucket or host, and the names below it. Repeated slashes are one, as in a path.
    """

    def __str__(self) -> str:
        scheme, *names = self.parts or (".",)
        if scheme.removesuffix(":") in (*SCHEMES, TABLE_SCHEME):
            return f"{scheme}//{'/'.join(names)}"
        return "/".join((scheme, *names))  # relative to another one

    def __fspath__(self) -> str:
        return str(self)

    @property
    def etag(self) -> str | None:
        """What the store says of an object's content; None where it says nothing."""
        with reached(self), self._filesystem.open_input_stream(self._key, None) as stream:
            metadata = stream.metadata() or {}
        found = {str(name).lower(): value for name, value in metadata.items()}.get("etag")
        return None if found is None else found.decode(errors="replace").strip('"')

    def exists(self, **_: Any) -> bool:
        """Whether an object or a folder is there."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether it is an object."""
        return bool(self._info.is_file)

    def is_dir(self) -> bool:
        """Whether objects lie below it."""
        return self._info.type.name == "Directory"

    def is_symlink(self) -> bool:
        """No link is known of."""
        return False

    def stat(self, **_: Any) -> Stat:  # type: ignore[override]
        """Size and time of change of an object.

        Raises:
            DataError: there is none.
        """
        if not self.is_file():
            raise _not_there(self)
        return Stat(self._info.size, self._info.mtime_ns or 0)

    def rglob(self, pattern: str) -> Generator[Self, None, None]:
        """The objects below it whose name fits, by one listing."""
        from pyarrow.fs import FileSelector

        with reached(self):
            selector = FileSelector(self._key, allow_not_found=True, recursive=True)
            found = self._filesystem.get_file_info(selector)
        for info in found:
            if info.is_file and fnmatchcase(info.base_name, pattern):
                path = self / info.path.removeprefix(self._key).lstrip("/")
                path.__dict__["_info"] = info
                yield path

    def glob(self, pattern: str) -> Generator[Self, None, None]:
        """The objects right below it whose name fits."""
        return (path for path in self.rglob(pattern) if path.parent == self)

    def open(self, mode: str = "rb", *_: Any, **__: Any) -> pa.NativeFile:  # type: ignore[override]
        """The object to read from anywhere, or with ``wb`` to write."""
        with reached(self):
            if mode == "wb":
                return self._filesystem.open_output_stream(self._key, compression=None)
            return self._filesystem.open_input_file(self._key)

    def stream(self, compression: str | None) -> pa.NativeFile:
        """The object to read from its beginning to its end, decompressed."""
        with reached(self):
            return self._filesystem.open_input_stream(self._key, compression, _AHEAD)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        with reached(self):
            self._filesystem.delete_file(self._key)

    def resolve(self, strict: bool = False) -> Self:
        """Itself."""
        return self

    def absolute(self) -> Self:
        """Itself."""
        return self

    @property
    def _filesystem(self) -> FileSystem:
        return _filesystem(self.parts[0], self.parts[1])

    @property
    def _key(self) -> str:
        """The name that the file system has for it."""
        if self.parts[0] == "hdfs:":
            return "/" + "/".join(self.parts[2:])
        return "/".join(self.parts[1:])

    @cached_property
    def _info(self) -> FileInfo:
        if self.parts[0] == f"{TABLE_SCHEME}:":
            from pyarrow.fs import FileInfo

            return FileInfo(self._key)  # nothing is there
        with reached(self):
            return self._filesystem.get_file_info(self._key)


@dataclass(frozen=True)
class Stat:
    """What is known of an object without reading it; named as in ``os.stat_result``."""

    st_size: int
    st_mtime_ns: int


@contextmanager
def reached(place: Path) -> Iterator[None]:
    """Say of what a store refuses, in a sentence, what it is about.

    Raises:
        DataError: it does.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise _not_there(place) from error
    except (OSError, ImportError) as error:
        raise store_error(place, error) from error


def is_of_store(error: Exception) -> bool:
    """Whether an error that Arrow raises while reading is the store's, not of a damaged file."""
    return isinstance(error, OSError) and any(sign in str(error) for sign in _OF_STORES)


def store_error(place: Path, error: Exception) -> DataError:
    """What a store says no to, in a sentence."""
    said = str(error).splitlines()[0].partition(" (Request ID")[0].rstrip(". ")
    if _NO_BUCKET.search(said):
        return DataError(f"{place} cannot be reached: there is no such bucket; correct the URL.")
    if _REFUSED.search(said):
        return DataError(
            f"{place} cannot be reached: access is refused ({said}). See whether this machine has "
            "credentials (environment, profile or role, as the store's own tools take them), "
            "whether they are allowed to do this, and whether its clock is right: a request that "
            "is some minutes off is refused too."
        )
    if _UNREACHED.search(said):
        return DataError(
            f"{place} cannot be reached: the connection to its store failed ({said}). Try again; "
            "where it never answers, see whether AWS_ENDPOINT_URL is right."
        )
    return DataError(f"{place} cannot be reached ({said}); docs/storage.md says what is needed.")


def _not_there(place: Path) -> DataError:
    return DataError(f"{place} is not there; see whether bucket and name are right.")


def _is_key(scheme: str, netloc: str) -> bool:
    """Whether a bucket has a user before it; HDFS has users, whose names are no secrets."""
    return "@" in netloc and scheme != "hdfs"


@cache
def _filesystem(scheme: str, host: str) -> FileSystem:
    """The file system of a bucket or host."""
    from pyarrow import fs

    if scheme == "s3:":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            return fs.S3FileSystem(endpoint_override=endpoint)
        return fs.FileSystem.from_uri(f"s3://{host}")[0]  # finds the bucket's region
    if scheme == "gs:":
        return fs.GcsFileSystem(retry_time_limit=_PATIENCE)
    return fs.FileSystem.from_uri(f"hdfs://{host}/")[0]
