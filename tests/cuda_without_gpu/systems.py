"""The systems whose steps are followed; a new system is a line of ``FOLLOWED``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

USERS, ITEMS, EVENTS = 50, 40, 16
HOUR = 3_600_000
START = 1_600_000_000_000

#: Settings of all systems: several batches an epoch, and nothing beside the step itself.
SHORT = ("trainer.progress_bar=false", "loader.num_workers=0")
SEQUENCES = ("loader.batch_size=10", "loader.max_length=12", "model.width=8")


@dataclass(frozen=True)
class Followed:
    """A training whose steps are followed.

    Attributes:
        system: its name in the registry.
        overrides: of ``recsys train``; ``{log}`` is the folder of ``write_log``.
        waits: how often the host waits for the device in a step, at most, from the batch on the
            device to the updated weights. As measured: lower it with every wait that goes.
    """

    system: str
    overrides: tuple[str, ...]
    waits: int

    def settings(self, log: Path) -> list[str]:
        """What the run is composed from."""
        data = ("data=log", f"data.path={log / 'log.parquet'}", f"data.out={log / 'prepared'}")
        own = (override.format(log=log) for override in self.overrides)
        return [f"system={self.system}", *data, *SHORT, *own]


FOLLOWED = {
    "dv365": Followed("dv365", ("slices=full", "model.dimension=8", "loader.batch_requests=40"), 1),
    "dv365_hstu": Followed(
        "dv365",
        (
            "model.backbone.kind=siamese",
            "model.recent.kind=hstu",
            "model.recent.events=12",
            "model.dimension=8",
            "loader.batch_requests=40",
        ),
        3,
    ),
    "nxtpost": Followed(
        "nxtpost",
        ("posts.path={log}/posts.npz", "loader.batch_size=10", "model.tower.width=8"),
        2,
    ),
    "post_tower": Followed(
        "post_tower", ("loader.batch_size=40", "model.tower.width=8", "model.log_q=1"), 2
    ),
    "sasrec": Followed("sequence", SEQUENCES, 0),
    "hstu": Followed("sequence", ("model=hstu", "model.has_times=true", *SEQUENCES), 0),
    "two_tower": Followed(
        "two_tower", ("loader.batch_size=10", "model.items.width=8", "model.users.width=8"), 1
    ),
    "two_tower_hstu": Followed(
        "two_tower",
        (
            "loader.batch_size=10",
            "model.items.width=8",
            "model.users.width=8",
            "model.users.encoder=hstu",
            "model.similarity=mixture",
            "model.mixture.width=4",
        ),
        1,
    ),
    "ranker": Followed(
        "ranker",
        ("loader.batch_requests=40", "model.net.dimension=8", "loader.max_events=12"),
        0,
    ),
    "hsnn": Followed(
        "hsnn",
        (
            "loader.batch_requests=40",
            "model.net.dimension=8",
            "model.net.levels=[{{codes:4,size:S}}]",
            "loader.max_events=12",
        ),
        0,
    ),
    "wide_and_deep": Followed("wide_and_deep", ("loader.batch_size=10", "model.width=8"), 1),
}


def write_log(folder: Path, items: int = ITEMS, events: int = EVENTS) -> None:
    """A log that every system can be trained on, and embeddings of its items.

    A user is shown an item every five hours, clicks on each, likes some and hides others; there
    are events of every kind that a slice asks for.
    """
    generator = np.random.default_rng(0)
    rows: list[tuple[int, int, int, str, float | None]] = []
    for user in range(USERS):
        for step, item in enumerate(generator.permutation(items)[:events].tolist()):
            time = START + (step * 5 + user % 5) * HOUR
            rows.append((user, item, time, "impression", float(generator.integers(90))))
            actions = ["click", "liked" if generator.random() < 0.5 else "hide"]
            for seconds, action in enumerate(actions, 1):
                rows.append((user, item, time + 1000 * seconds, action, None))
    names = ["user_id", "item_id", "timestamp", "action_type", "dwell_time"]
    item = pl.col("item_id")
    log = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        author_id=item % 7,
        topic_id=item % 4,
        surface=pl.lit("feed"),
        media_type=pl.when(item % 2 == 0).then(pl.lit("video")).otherwise(pl.lit("photo")),
        video_duration=pl.when(item % 2 == 0).then(30.0),
    )
    log.write_parquet(folder / "log.parquet")
    embedding = generator.normal(size=(items, 8)).astype(np.float32)
    np.savez(folder / "posts.npz", item_id=np.arange(items), embedding=embedding)
