"""`recsys data delete`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.cli.described import with_dataset
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.embeddings.deletion import DeleteConfig, delete_user


def configure(overrides: Sequence[str]) -> DeleteConfig:
    """Compose conf/delete.yaml; the description of a data set stands for its folder."""
    return compose("delete", DeleteConfig, with_dataset(overrides))


def run(overrides: Sequence[str]) -> None:
    """Delete the user and say what was found."""
    config = configure(overrides)
    deleted = delete_user(config)
    console = message_console()
    if config.dataset is not None:
        console.print(f"User {config.user}: {deleted.events:,} events removed from the timelines.")
    if config.live is not None:
        removed = f"{deleted.live_events:,} live events removed"
        console.print(f"User {config.user}: {removed}.")
    if config.store is not None:
        found = "removed from the store" if deleted.embedding else "not in the store"
        console.print(f"User {config.user}: {found}.")
