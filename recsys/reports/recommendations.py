"""A page to look at: what users did, and what is recommended to them, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from recsys.core.durable import replace_file
from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_text
from recsys.reports.page import rendered

TEMPLATE = "recommendations.html.jinja"

#: Users that a page shows at most.
MOST_USERS = 200

#: An item of a given history.
NOT_IN_LOG = "an item that the log does not have"

#: What a browser may load a picture from.
_SCHEMES = ("http", "https")


@dataclass(frozen=True, eq=False)
class RecommendationPage:
    """What the page shows.

    Attributes:
        subtitle: of which model, and as of when.
        users: raw ids, as text.
        histories: ``user_id``, ``item_id``, ``title``, ``action_type``, ``timestamp``, ``events``
            (of the user in all) and ``image``.
        recommendations: ``user_id``, ``rank``, ``item_id``, ``score``, ``title``, ``basis``,
            ``image``, and ``reasons`` where they were asked for.
        has_times: whether the log has times, not an order alone.
    """

    subtitle: str
    users: list[str]
    histories: pl.DataFrame
    recommendations: pl.DataFrame
    has_times: bool = True


def check_users(users: int) -> None:
    """Refuse more users than a page shows.

    Raises:
        ConfigError: there are more.
    """
    if users > MOST_USERS:
        raise ConfigError(
            f"A page shows at most {MOST_USERS} users, not {users:,}; name fewer, or write a table "
            "(out=recommendations.parquet)."
        )


def write_recommendations(page: RecommendationPage, path: Path) -> None:
    """Write the page, which needs nothing beside itself but the pictures that it links to."""
    history = page.histories.partition_by("user_id", as_dict=True)
    recommended = page.recommendations.partition_by("user_id", as_dict=True)
    done = {str(user): rows for (user,), rows in history.items()}
    best = {str(user): rows for (user,), rows in recommended.items()}
    users = [
        {
            "name": user,
            "note": _note(best.get(user)),
            "history": [_event(row, page.has_times) for row in _rows(done.get(user))],
            "older": _older(done.get(user)),
            "recommended": [_item(row) for row in _rows(best.get(user))],
        }
        for user in page.users
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = {"subtitle": page.subtitle, "users": users, "has_times": page.has_times}
    replace_file(path, rendered(TEMPLATE, **shown).encode())


def _rows(table: pl.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else list(table.iter_rows(named=True))


def _note(recommended: pl.DataFrame | None) -> str:
    return "" if recommended is None else f"rests on: {recommended['basis'][0]}"


def _older(history: pl.DataFrame | None) -> str:
    """How many events are not shown; empty for none."""
    older = 0 if history is None else int(history["events"][0]) - len(history)
    return f"{older:,}" if older else ""


def _event(row: dict[str, Any], has_times: bool) -> dict[str, Any]:
    said = [row["action_type"]] * (row["action_type"] is not None)
    said += [to_text(row["timestamp"])[:16].replace("T", " ")] * has_times
    return _named(row) | {"number": " · ".join(said)}


def _item(row: dict[str, Any]) -> dict[str, Any]:
    reasons = row.get("reasons")
    more = [row["item_id"]] * (row["title"] is not None)
    more += [f"near {reasons}"] * (reasons is not None)
    return _named(row) | {
        "rank": row["rank"],
        "number": f"{row['score']:.3f}",
        "more": " · ".join(map(str, more)),
    }


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """The title, else the id; and the picture, if it is on the web."""
    if row["item_id"] is None:
        return {"name": NOT_IN_LOG, "more": "", "image": ""}
    name = row["item_id"] if row["title"] is None else row["title"]
    more = "" if row["title"] is None else str(row["item_id"])
    return {"name": str(name), "more": more, "image": _on_the_web(row["image"])}


def _on_the_web(link: str | None) -> str:
    """A link that a page may load; empty for any other, such as `javascript:` or a file."""
    try:
        parts = urlsplit(link or "")
    except ValueError:
        return ""
    return str(link) if parts.scheme in _SCHEMES and parts.netloc else ""
