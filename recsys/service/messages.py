"""What is said to the service, as JSON."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from recsys.data.contract.time_columns import LAST_TIMESTAMP

RawId = int | str
_Moment = Annotated[int, msgspec.Meta(ge=0, lt=LAST_TIMESTAMP)]


class Recommend(msgspec.Struct, forbid_unknown_fields=True):
    """A list is wanted.

    Attributes:
        user: raw id.
        k: items of the list.
        moment: ms; what is known ends strictly before it. Now, where it is not given.
        context: of the request by feature, such as its surface, where models read it.
        changes: settings of the funnel that are otherwise for this request, by their keys.
        draws: number that what is drawn follows from, so that two lists are compared under the
            same draws; the request's own, where it is not given.
        explain: whether the answer says what became of every candidate.
    """

    user: RawId
    k: Annotated[int, msgspec.Meta(ge=1)] = 20
    moment: _Moment | None = None
    context: dict[str, str | int | float] = {}
    changes: dict[str, Any] = {}
    draws: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] | None = None
    explain: bool = False


class Open(msgspec.Struct, forbid_unknown_fields=True):
    """A user has opened the app, and may come for a list.

    Attributes:
        user: raw id.
        k: items of the list that a visit would ask for.
        moment: ms; now, where it is not given.
        notified: whether the app shows a notification of the service.
        device: by the name that the prefetcher was trained with; network likewise.
        waited_ms: how long the last list was waited for from end to end, where it was not one that
            was made in advance.
        context: of the list, as of a request.
    """

    user: RawId
    k: Annotated[int, msgspec.Meta(ge=1)] = 20
    moment: _Moment | None = None
    notified: bool = False
    device: str | None = None
    network: str | None = None
    waited_ms: Annotated[float, msgspec.Meta(gt=0, le=3_600_000)] | None = None
    context: dict[str, str | int | float] = {}


class Event(msgspec.Struct, forbid_unknown_fields=True):
    """Something that a user did.

    Attributes:
        user: raw id; item likewise.
        timestamp: ms; now, where it is not given.
        action: its name in the log; an impression where it is not given.
        dwell_time: of an impression, s; video_duration likewise.
        surface: where, by its name in the log; media_type likewise.
    """

    user: RawId
    item: RawId
    timestamp: _Moment | None = None
    action: str = "impression"
    dwell_time: float | None = None
    video_duration: float | None = None
    surface: str | None = None
    media_type: str | None = None


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """Something that can be shown from now on.

    Attributes:
        item: raw id.
        timestamp: ms since when it is there; now, where it is not given.
        author: raw id; topic likewise.
        features: what is stated of it, by the names that the data set has: features and texts.
    """

    item: RawId
    timestamp: _Moment | None = None
    author: RawId | None = None
    topic: RawId | None = None
    features: dict[str, str | int | float | list[str] | None] = {}


class OperatingPoint(msgspec.Struct, forbid_unknown_fields=True):
    """What the service is to go over to.

    Attributes:
        point: name of an operating point; None for the funnel as it is declared.
    """

    point: str | None


def schema(kind: Any) -> dict[str, Any]:
    """A body of this kind, as OpenAPI says it."""
    described, parts = msgspec.json.schema_components([kind])
    # self-contained: FastAPI has no place for parts of bodies that it does not read itself
    found: dict[str, Any] = _resolved(described[0], parts)
    content = {"application/json": {"schema": found}}
    return {"requestBody": {"required": True, "content": content}}


def _resolved(node: Any, parts: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _resolved(parts[node["$ref"].rpartition("/")[2]], parts)
        return {key: _resolved(one, parts) for key, one in node.items()}
    if isinstance(node, list):
        return [_resolved(one, parts) for one in node]
    return node
