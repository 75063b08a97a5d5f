"""What the name of a table's file says: its form, its compression, and where tables lie."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from recsys.core.errors import DataError

#: What a table may end in, for sentences.
FORMS = "Parquet (.parquet), CSV (.csv, .tsv, also with .gz or .zst behind it) or RecBole (.inter)"

#: Stands between the values of a list that is written as text.
LIST_SEPARATOR = "|"

#: Of files of text what separates the columns, by ending.
DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t"}
_PARQUET_ENDINGS = frozenset({".parquet", ".pq"})
#: Atomic files of RecBole; a folder of them holds different tables.
_ATOMIC = (".inter", ".item", ".user")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
#: How Hive writes a partition whose value is null.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def data_files(path: Path, setting: str = "path") -> list[Path]:
    """The data files behind ``path``: the file itself, or those of a folder in name order.

    Of RecBole's atomic files a folder is read for those of the setting: ``.item`` for one whose
    name has ``items`` or ``posts`` in it, ``.user`` for ``users``, ``.inter`` for any other.

    Args:
        path: a file or a folder.
        setting: the key that has this value, for the sentence.

    Raises:
        DataError: there is nothing there, or nothing that is a table.
    """
    if path.is_file():
        if not is_data_file(path):
            raise DataError(f"{path} is not {FORMS}; give a file with one of these endings.")
        return [path]
    if not path.is_dir():
        looked_for = ""
        # of a log alone: other files are where their key says, and so is what has a URL
        if setting == "path" and not is_remote(path):
            looked_for = (
                " It is looked for from the current folder, then below data_dir=, else "
                "RECSYS_DATA_DIR, else ./data."
            )
        raise DataError(
            f"{path} does not exist; give {setting}= a Parquet or CSV file or a folder.{looked_for}"
        )
    others = {ending for ending in _ATOMIC if ending != _atomic_ending(setting)}
    files = sorted(
        file for file in path.rglob("*") if is_data_file(file) and ending_of(file) not in others
    )
    if not files:
        raise DataError(f"{path} holds no file of {FORMS}; give {setting}= another folder.")
    return files


def is_data_file(path: Path) -> bool:
    """Whether a path is a file that ends as a table does."""
    ends = ending_of(path) in _PARQUET_ENDINGS | DELIMITERS.keys()
    return ends and not (is_parquet(path) and compression_of(path)) and path.is_file()


def partition_values(path: Path) -> dict[str, str | None]:
    """What the names of the folders above a file say: ``date=2024-05-01`` gives it a column.

    Only folders right above each other that all have such names count.
    """
    values: dict[str, str | None] = {}
    for folder in path.parents:
        key, equals, value = folder.name.partition("=")
        if not key or not equals:
            break
        values = {unquote(key): None if value == _NO_VALUE else unquote(value)} | values
    return values


def list_separator(path: Path) -> str:
    """What stands between the values of a list that a file writes as text: blanks in RecBole's."""
    return " " if is_atomic(path) else LIST_SEPARATOR


def is_parquet(path: Path) -> bool:
    """Whether a file that ``data_files`` found is Parquet; otherwise it is text."""
    return ending_of(path) in _PARQUET_ENDINGS


def is_atomic(path: Path) -> bool:
    """Whether it is one of RecBole's files, whose columns are named ``name:type``."""
    return ending_of(path) in _ATOMIC


def ending_of(path: Path) -> str:
    """The ending that says what a file is, without that of its compression."""
    name = path.with_suffix("") if compression_of(path) else path
    return name.suffix.lower()


def compression_of(path: Path) -> str | None:
    """How a file is compressed, in Arrow's words; None for one that is not."""
    return _COMPRESSIONS.get(path.suffix.lower())


def _atomic_ending(setting: str) -> str:
    words = setting.split(".")
    if "users" in words:
        return ".user"
    return ".item" if {"items", "posts"}.intersection(words) else ".inter"


def is_remote(path: Path) -> bool:
    """Whether it is a `RemotePath`: in no other path two slashes follow each other."""
    return "://" in str(path)


def error_of_store(path: Path, error: Exception) -> DataError | None:
    """The sentence for an error that is of the store where a file lies, and not the file's."""
    if not is_remote(path):
        return None
    from recsys.core.location import is_of_store, store_error  # which few need

    return store_error(path, error) if is_of_store(error) else None
