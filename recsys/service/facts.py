"""What is known of users and items, for those who look at a funnel.

Legend: n items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.contract.schema import IMPRESSION, LENGTHS, TimelineKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import END_OF_TIME
from recsys.data.stores.vocabulary import INDEX
from recsys.service.served import Served

#: Events of a user that are shown, the newest ones.
_SHOWN = 200


def item_facts(dataset: PreparedDataset, items: NDArray[np.int64]) -> list[dict[str, Any]]:
    """[n] what is stated of items, by their indices."""
    wanted = pl.DataFrame({INDEX: items.astype(np.int32)})
    table = wanted.join(dataset.item_table(), on=INDEX, how="left", maintain_order="left")
    return table.drop(INDEX).to_dicts()


def user_facts(served: Served, user: int | str) -> dict[str, Any]:
    """A user's group and newest events, the newest first, with what is stated of the items."""
    index = served.users.indices([user])
    parts = [_events(served, int(index[0]), kind) for kind in TimelineKind]
    events = pl.concat(parts, how="diagonal").sort("timestamp", descending=True).head(_SHOWN)
    items = events["item"].to_numpy().astype(np.int64)
    rows = events.with_columns(pl.Series("item", served.items.raw(items))).to_dicts()
    facts = item_facts(served.dataset, items)
    return {
        "user": user,
        "known": bool(index[0] > 0),
        "group": served.known.groups[int(served.known.group(index)[0])],
        "history": [{**row, "facts": one} for row, one in zip(rows, facts, strict=True)],
    }


def _events(served: Served, user: int, kind: TimelineKind) -> pl.DataFrame:
    events = served.dataset.timelines.histories([user], [END_OF_TIME], kind, _SHOWN)
    del events[LENGTHS]
    frame = pl.DataFrame({name: np.array(of) for name, of in events.items()})
    names = served.dataset.manifest.action_types
    if kind is TimelineKind.IMPLICIT:
        action = pl.lit(IMPRESSION)
    else:
        action = pl.col("action_type").replace_strict(
            range(len(names)), names, return_dtype=pl.String()
        )
    seconds = [name for name in ("dwell_time",) if name in frame.columns]
    return frame.select("timestamp", "item", action.alias("action"), *seconds)
