"""What counts as an engagement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from recsys.core.bounds import OneOf, Settings
from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION, NEGATIVE_ACTION_TYPES

_EXPLICIT = tuple(name for name in ACTION_TYPES if name != IMPRESSION)


@dataclass(frozen=True)
class SequenceConfig(Settings):
    """Which events of the explicit timelines are engagements.

    Attributes:
        actions: action types that count; empty for every explicit one that does not say "less of
            this" (``NEGATIVE_ACTION_TYPES``).
        repeats: keep every engagement of a user with an item; otherwise only the first.
        has_times: the timestamps are moments; False where the log has an order only, and what
            lies between two events says nothing.
    """

    actions: list[Annotated[str, OneOf(_EXPLICIT)]] = field(default_factory=list)
    repeats: bool = False
    has_times: bool = True

    @property
    def action_codes(self) -> list[int]:
        """Positions in ``ACTION_TYPES`` of the action types that count, ascending."""
        wanted = set(self.actions) or set(ACTION_TYPES) - NEGATIVE_ACTION_TYPES - {IMPRESSION}
        return [code for code, name in enumerate(ACTION_TYPES) if name in wanted]
