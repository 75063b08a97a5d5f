"""`recsys recur rollback`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.recurring.config import RollbackConfig
from recsys.recurring.generations import Generations


def run(overrides: Sequence[str]) -> None:
    """Serve the generation before again, and say which."""
    config = compose("recur_rollback", RollbackConfig, overrides)
    generations = Generations(Path(config.folder))
    generations.check()
    with generations.held():
        withdrawn, served = generations.roll_back()
    message_console().print(
        f"Generation {withdrawn.number} is withdrawn, generation {served.number} is served again: "
        f"{generations.run_dir(served)}."
    )
