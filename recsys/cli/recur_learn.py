"""`recsys recur learn`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.recurring.learn import LearnConfig, learn
from recsys.recurring.learners import Measured


def configure(overrides: Sequence[str]) -> LearnConfig:
    """Compose conf/recur_learn.yaml."""
    return compose("recur_learn", LearnConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Train a stage, and say what came of it."""
    config = configure(overrides)
    found = learn(config)
    console = message_console()
    console.print(f"Training {found.training}: {told(config.stage, found.measured)}")
    if found.generation is None:
        console.print("It is surely worse, and is not served.")
    else:
        console.print(f"{config.state} serves generation {found.generation}.")


def told(stage: str, found: Measured) -> str:
    """A stage beside the one that was served, in a sentence."""
    change = found.change
    return (
        f"{found.what}: {found.new:.4f}, by the {stage} stage that was served {found.served:.4f} "
        f"({change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}])."
    )
