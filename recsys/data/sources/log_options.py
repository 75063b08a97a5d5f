"""How a log is read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Annotated

from recsys.core.bounds import Count, Hours, Number, OneOf
from recsys.core.errors import ConfigError
from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS
from recsys.data.contract.schema import Column
from recsys.data.contract.time_columns import UNITS
from recsys.data.sources.periods import PeriodOptions
from recsys.data.sources.tables import ItemTableOptions, UserTableOptions

#: How a log is split.
BY_TIME, BY_LAST, BY_USERS = SPLITS = ("time", "last", "users")

#: Options that say something of moments, so nothing where a log has an order only.
_OF_TIMES = ("fit_until", "choose_until", "choose_days", "report_days", "tasks", "task_hours")


@dataclass(frozen=True)
class LogOptions(PeriodOptions):
    """How a log is read.

    Attributes:
        columns: column of the contract to the name it has in the log, where they differ; null for
            ``timestamp`` of a log that has an order only.
        time_unit: of numbers in ``timestamp`` and ``request_time``, since 1970 (UTC), or ``iso``
            for texts as in ISO 8601.
        time_zone: of texts and datetimes that name none.
        default_action: action of rows that name none, as if it stood there; None: ``impression``.
        actions: name in the log to a known action type, or to ``positive`` or ``negative``, which
            make it an action of its own, or to ``ignore``, which leaves its rows out. Known action
            types that are not listed mean themselves.
        flags: columns of 0 and 1, or of true and false, that each say whether an action happened on
            a row's item, named as the column: an event beside the row's own.
        tasks: actions to predict, ``watch_time`` among them; None for all that the log has.
        attribution_hours: an action counts for an impression at most this long before it.
        task_hours: the same for single tasks, where it differs.
        split: ``time``; ``last``, by which the last events of each user are reported; or ``users``,
            by which users are held out. The latter two see the order of a user's events alone.
        last_events: with ``split=last``, how many events of each user are reported, and how many
            before them chosen on; explicit ones that are not negative count.
        choose_users: with ``split=users``, share of the users that is chosen on.
        report_users: with ``split=users``, share of the users that is reported.
        items: the table of items, or which columns of the log say something of them.
        users: likewise of users.
        snapshot: of a table of Delta Lake, the version, or of Iceberg, the id of what is read; None
            for the newest one.
        chunk_rows: rows read at a time.
    """

    columns: dict[str, str | None] = field(default_factory=dict)
    time_unit: Annotated[str, OneOf(UNITS)] = "ms"
    time_zone: str = "UTC"
    default_action: str | None = None
    actions: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    tasks: list[str] | None = None
    attribution_hours: Hours = 24.0
    task_hours: dict[str, Hours] = field(default_factory=dict)
    split: Annotated[str, OneOf(SPLITS)] = BY_TIME
    last_events: Annotated[int, Number(at_least=1, at_most=10_000)] = 1
    choose_users: Annotated[float, Number(above=0, below=1)] = 0.1
    report_users: Annotated[float, Number(above=0, below=1)] = 0.1
    items: ItemTableOptions | None = None
    users: UserTableOptions | None = None
    snapshot: Annotated[int, Number(at_least=0, at_most=2**63 - 1)] | None = None
    chunk_rows: Count = DEFAULT_CHUNK_ROWS

    def __post_init__(self) -> None:
        """Refuse settings that do not belong together.

        Raises:
            ConfigError: there are such.
        """
        super().__post_init__()
        if self.split == BY_TIME:
            if self.columns.get(Column.TIMESTAMP, "") is None:
                raise ConfigError(
                    "options.columns.timestamp is null, so the log has an order only, and nothing "
                    "to split by time; set options.split=last or options.split=users."
                )
            return
        for name in _OF_TIMES:
            if getattr(self, name):
                raise ConfigError(
                    f"options.{name} belongs to a split by time; with options.split={self.split} "
                    "the order of a user's events is all that is left of their times, so there are "
                    "neither dates nor labels of what was shown: leave it out, or set "
                    "options.split=time."
                )


def refuse_other_tasks(options: LogOptions, actions: ActionTypes) -> None:
    """Refuse hours of what is no task.

    Raises:
        ConfigError: with the nearest name.
    """
    for name in options.task_hours:
        if name in actions.explicit:
            continue
        meant = options.actions.get(name)
        near = [meant] if meant in actions.explicit else []
        near = near or difflib.get_close_matches(name, actions.explicit, n=1)
        hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(actions.explicit)}."
        raise ConfigError(f"options.task_hours.{name}: {name} is no action to predict; {hint}")
