"""A file system without room for what is to be written, as a sentence."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.core.errors import RecsysError

#: No space left, a quota used up, a file larger than may be; and what LMDB says of a write that
#: the end of the space has cut short.
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
#: What libraries say that keep the number to themselves; the last is NumPy's.
_SAID = re.compile("|".join([*map(os.strerror, _NUMBERS), r"\d+ requested and \d+ written"]))


@contextmanager
def named_if_full(place: Path) -> Iterator[None]:
    """Say that there is no room for ``place`` where that is why the block fails.

    Raises:
        RecsysError: no room; any other error is raised as it is.
    """
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        why = _want_of_room(error)
        if why is None:
            raise
        raise RecsysError(
            f"{place} could not be written: {why} ({_free(place)}). Make room, or give a place on "
            "another file system, and do the same again."
        ) from error


def _want_of_room(error: BaseException | None) -> str | None:
    """What an error, or one behind it, says of a file system that is full; None if nothing."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NUMBERS:
            return os.strerror(error.errno)
        if said := _SAID.search(str(error)):
            named = any(said[0] == os.strerror(number) for number in _NUMBERS)
            return said[0] if named else os.strerror(errno.ENOSPC)
        error = error.__cause__ or error.__context__
    return None


def _free(place: Path) -> str:
    """How much room there is now, after what was begun has been removed."""
    folder = next(one for one in place.absolute().parents if one.is_dir())
    usage = shutil.disk_usage(folder)
    return f"{usage.free / 1e6:,.1f} MB of {usage.total / 1e6:,.1f} MB are free at {folder}"
