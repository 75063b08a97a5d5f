"""The one place that knows column names: the interaction log, request rows and timelines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl

MILLISECONDS_PER_SECOND = 1_000
MILLISECONDS_PER_HOUR = 3_600_000
MILLISECONDS_PER_DAY = 86_400_000


class Column(StrEnum):
    """Columns of the interaction log and of request rows."""

    USER = "user_id"
    ITEM = "item_id"
    TIMESTAMP = "timestamp"  # UTC, ms
    AUTHOR = "author_id"
    TOPIC = "topic_id"
    MEDIA_TYPE = "media_type"
    SURFACE = "surface"
    ACTION_TYPE = "action_type"
    DWELL_TIME = "dwell_time"  # s
    VIDEO_DURATION = "video_duration"  # s
    REQUEST_TIME = "request_time"  # UTC, ms: when the recommendation was made


class TimelineKind(StrEnum):
    """The two timelines of a user (DV365 §2.1, equation 1)."""

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"


class Split(StrEnum):
    """Rows are split by time; only the final `recsys evaluate` reads ``report``."""

    FIT = "fit"
    CHOOSE = "choose"
    REPORT = "report"


#: The action that makes an event implicit: the item was shown, with or without dwell time.
IMPRESSION = "impression"

#: The known action types. A timeline stores the position in the data set's list, which begins with
#: these; prepared data sets have it written out, so that new ones can be added at the end.
ACTION_TYPES: tuple[str, ...] = (
    IMPRESSION,
    "click",
    "liked",
    "comment",
    "save",
    "reshare",
    "external_share",
    "follow",
    "profile_visit",
    "hide",
    "long_view",
    "video_complete",
    "skip",
)

#: Explicit actions that say "less of this" (DV365 §2.2 groups tables by engagement sign).
NEGATIVE_ACTION_TYPES: frozenset[str] = frozenset({"hide", "skip"})

LOG_SCHEMA: dict[str, pl.DataType] = {
    Column.USER: pl.Int64(),
    Column.ITEM: pl.Int64(),
    Column.TIMESTAMP: pl.Int64(),
    Column.AUTHOR: pl.Int64(),
    Column.TOPIC: pl.Int64(),
    Column.MEDIA_TYPE: pl.String(),
    Column.SURFACE: pl.String(),
    Column.ACTION_TYPE: pl.String(),
    Column.DWELL_TIME: pl.Float32(),
    Column.VIDEO_DURATION: pl.Float32(),
}

REQUIRED_LOG_COLUMNS: tuple[str, ...] = (Column.USER, Column.ITEM, Column.TIMESTAMP)

#: Id columns that have a vocabulary (raw id -> index; index 0 is the unknown id).
ID_COLUMNS: tuple[str, ...] = (Column.USER, Column.ITEM, Column.AUTHOR, Column.TOPIC)


#: Of a request row: when its item was shown (ms), where that may be later than the request.
SHOWN_AT = "shown_at"

#: Of an impression or a request row: how likely the item was to come to its place in the list,
#: where it was drawn for it.
PROPENSITY = "propensity"

#: Beside the columns of a jagged timeline: [B] int64, the events of each request.
LENGTHS = "lengths"

#: Columns of the two timelines and their dtypes, in memory, on disk and in an exported tower's
#: input; ids are vocabulary indices, 0 = unknown.
EXPLICIT_COLUMNS: dict[str, np.dtype] = {
    "timestamp": np.dtype(np.int64),  # ms
    "item": np.dtype(np.int32),
    "author": np.dtype(np.int32),
    "topic": np.dtype(np.int32),
    "media_type": np.dtype(np.int8),  # position in the data set's list
    "surface": np.dtype(np.int8),  # position in the data set's list
    "action_type": np.dtype(np.int8),  # position in the data set's list
}
IMPLICIT_COLUMNS: dict[str, np.dtype] = {
    "timestamp": np.dtype(np.int64),
    "item": np.dtype(np.int32),
    "author": np.dtype(np.int32),
    "topic": np.dtype(np.int32),
    "media_type": np.dtype(np.int8),
    "surface": np.dtype(np.int8),
    "video_duration": np.dtype(np.float32),  # s, NaN where unknown
    "dwell_time": np.dtype(np.float32),  # s, NaN where unknown
}
TIMELINE_COLUMNS = {
    TimelineKind.EXPLICIT: EXPLICIT_COLUMNS,
    TimelineKind.IMPLICIT: IMPLICIT_COLUMNS,
}


class TaskKind(StrEnum):
    """Binary tasks are trained with cross-entropy, regression tasks with squared error."""

    BINARY = "binary"
    REGRESSION = "regression"


@dataclass(frozen=True)
class Task:
    """One label of a request row.

    Attributes:
        name: a word of the field, for example ``liked``; the label column is ``label_<name>``.
        kind: binary (labels 0 and 1) or regression (``watch_time``, in seconds).
    """

    name: str
    kind: TaskKind = TaskKind.BINARY

    @property
    def column(self) -> str:
        """The label column of request rows."""
        return f"label_{self.name}"


class FeatureSide(StrEnum):
    """Whose property a feature is: the user's, the item's or the request row's."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"


class FeatureKind(StrEnum):
    """Categorical features are looked up in a table, dense ones are standardised numbers."""

    CATEGORICAL = "categorical"
    DENSE = "dense"


@dataclass(frozen=True)
class Feature:
    """One input of the ranking backbone.

    Attributes:
        name: the column it is read from.
        side: user, item or context.
        kind: categorical (indices in ``[0, cardinality)``, 0 = unknown) or dense.
        cardinality: number of indices of a categorical feature, 0 for a dense one.
    """

    name: str
    side: FeatureSide
    kind: FeatureKind
    cardinality: int = 0
