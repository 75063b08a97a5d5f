"""Reads the embeddings that a recurring training serves, again and again, until it is ended."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import RecsysError
from recsys.embeddings.publish import DEFAULT_STORE
from recsys.embeddings.stores import open_store
from recsys.embeddings.stores.base import encode_user
from recsys.recurring.generations import PUBLISHED, Generations

_PAUSE = 0.1


@dataclass(frozen=True)
class Served:
    """What a reader sees.

    Attributes:
        generation: that is served.
        embeddings: of every user, as a digest of ids and rows.
        problem: what is not as it was published; empty where all is well.
    """

    generation: int
    embeddings: str
    problem: str = ""


def served(folder: Path) -> Served | None:
    """What is served now; None before the first generation."""
    generations = Generations(folder)
    current = generations.current()
    if current is None:
        return None
    location = generations.run_dir(current) / DEFAULT_STORE
    with open_store(str(location), readonly=True) as store:
        publication = store.current()
        users = sorted(store.users(), key=encode_user)
        found = store.get_many(users)
    digest = hashlib.sha256()
    for user, one in zip(users, found, strict=True):
        digest.update(encode_user(user) + (b"" if one is None else one.rows.tobytes()))
    versions = {None if one is None else one.version for one in found}
    expected = current.done[PUBLISHED]["active_users"]
    problem = ""
    if publication is None or versions != {publication.version}:
        problem = f"users are of versions {versions}, the publication is {publication}"
    elif len(users) != expected:
        problem = f"{len(users)} users have an embedding, {expected} were published"
    return Served(current.number, digest.hexdigest(), problem)


def _read_until_ended(folder: Path) -> dict[str, object]:
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    reads, seen, problems = 0, dict[int, str](), []
    while not ended:
        try:
            now = served(folder)
        except RecsysError as error:
            problems.append(str(error))
            continue
        if now is not None:
            reads += 1
            if now.problem:
                problems.append(f"generation {now.generation}: {now.problem}")
            if seen.setdefault(now.generation, now.embeddings) != now.embeddings:
                problems.append(f"generation {now.generation} has changed while it was served")
            if now.generation < max(seen):
                problems.append(f"generation {now.generation} is served after {max(seen)}")
        time.sleep(_PAUSE)
    return {"reads": reads, "seen": seen, "problems": problems}


if __name__ == "__main__":
    print(json.dumps(_read_until_ended(Path(sys.argv[1]))))
