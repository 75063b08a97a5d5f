"""`recsys recur learn`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.recurring.learn import LearnConfig, learn


def configure(overrides: Sequence[str]) -> LearnConfig:
    """Compose conf/recur_learn.yaml."""
    return compose("recur_learn", LearnConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Train the first stage, and say what came of it."""
    config = configure(overrides)
    found = learn(config)
    change = found.change
    console = message_console()
    console.print(
        f"Training {found.training}: of what later stages selected the {found.kept} best hold "
        f"{found.new:.3f}, by the first stage that was served {found.served:.3f} "
        f"({change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}])."
    )
    if found.generation is None:
        console.print("It is surely worse, and is not served.")
    else:
        console.print(f"{config.state} serves generation {found.generation}.")
