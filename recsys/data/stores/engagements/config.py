"""What counts as an engagement."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from recsys.core.bounds import Settings
from recsys.core.errors import ConfigError
from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import IMPRESSION


@dataclass(frozen=True)
class SequenceConfig(Settings):
    """Which events of the explicit timelines are engagements.

    Attributes:
        actions: action types that count, the log's own ones among them; empty for every explicit
            one that does not say "less of this".
        repeats: keep every engagement of a user with an item; otherwise only the first.
        has_times: the timestamps are moments; False where the log has an order only, and what
            lies between two events says nothing. None: as the data set says.
    """

    actions: list[str] = field(default_factory=list)
    repeats: bool = False
    has_times: bool | None = None

    def action_codes(self, known: ActionTypes) -> list[int]:
        """Codes of the action types that count, ascending.

        Args:
            known: the action types of the data set.

        Raises:
            ConfigError: one that is asked for is none of them, or no explicit one.
        """
        for name in self.actions:
            if name == IMPRESSION:
                raise ConfigError(
                    f"sequences.actions has {IMPRESSION}, but sequences are of explicit actions: "
                    "that something was shown is no engagement. Where what the log calls a view is "
                    "one, let it mean click when the log is prepared: options.actions.<its "
                    "name>=click."
                )
            if name not in known.explicit:
                raise ConfigError(
                    f"sequences.actions has {name}, which is no action of the data set; choose "
                    f"from {', '.join(known.explicit)}, or leave the list empty."
                )
        return known.codes(self.actions or known.positive)

    def on(self, manifest: DatasetManifest) -> Self:
        """The same with nothing left to the data set: it may get further actions.

        Raises:
            ConfigError: as ``action_codes``.
        """
        codes = self.action_codes(manifest.actions)
        has_times = manifest.has_times if self.has_times is None else self.has_times
        actions = [manifest.action_types[code] for code in codes]
        return replace(self, actions=actions, has_times=has_times)
