"""What counts as an engagement."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION, NEGATIVE_ACTION_TYPES


@dataclass(frozen=True)
class SequenceConfig:
    """Which events of the explicit timelines are engagements.

    Attributes:
        actions: action types that count; empty for every explicit one that does not say "less of
            this" (``NEGATIVE_ACTION_TYPES``).
        repeats: keep every engagement of a user with an item; otherwise only the first.
        has_times: the timestamps are moments; False where the log has an order only, and what
            lies between two events says nothing.
    """

    actions: list[str] = field(default_factory=list)
    repeats: bool = False
    has_times: bool = True

    def __post_init__(self) -> None:
        """Refuse action types that no explicit timeline has."""
        explicit = [name for name in ACTION_TYPES if name != IMPRESSION]
        for name in self.actions:
            if name not in explicit:
                raise ConfigError(
                    f"actions has {name!r}, which is no explicit action type; they are "
                    f"{', '.join(explicit)}."
                )

    @property
    def action_codes(self) -> list[int]:
        """Positions in ``ACTION_TYPES`` of the action types that count, ascending."""
        wanted = set(self.actions) or set(ACTION_TYPES) - NEGATIVE_ACTION_TYPES - {IMPRESSION}
        return [code for code, name in enumerate(ACTION_TYPES) if name in wanted]
