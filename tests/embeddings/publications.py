"""Publications of a small tower for the tests, and what a store then holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lmdb

from recsys.embeddings.publish import PublishConfig
from recsys.embeddings.stores import open_store
from tests.systems.dv365.runs import RAW_SHIFT, USERS
from tests.systems.dv365.towers import NOW

IDS = [RAW_SHIFT + index for index in range(1, USERS)]
#: Users per batch that this machine can publish: see ``can_publish``.
BATCH_USERS = [16]


def config(folder: Path, store: str, as_of: int = NOW, **options: object) -> PublishConfig:
    plain = PublishConfig(
        run_dir=str(folder / "run"),
        dataset=str(folder / "data"),
        as_of=str(as_of),
        store=str(folder / store),
        retention_days=20,
        batch_users=BATCH_USERS[0],
    )
    return replace(plain, **options)  # type: ignore[arg-type]


def published(store: str | Path, ids: list[int] = IDS) -> dict[int, bytes]:
    with open_store(str(store)) as opened:
        found = opened.get_many(ids)
    return {user: one.rows.tobytes() for user, one in zip(ids, found, strict=True) if one}


def records(store: Path) -> list[tuple[bytes, bytes]]:
    """Everything an LMDB keeps of users, key by key."""
    with lmdb.open(str(store), max_dbs=4, readonly=True) as environment:
        database = environment.open_db(b"records", create=False)
        with environment.begin() as transaction:
            return [(bytes(key), bytes(value)) for key, value in transaction.cursor(database)]
