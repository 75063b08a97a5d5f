"""`recsys recur run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.cli.recur_status import print_status
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.data.contract.moments import to_text
from recsys.recurring.config import RecurConfig
from recsys.recurring.cycle import Outcome, run_cycle
from recsys.recurring.generations import PUBLISHED, REFRESHED, Generations

#: Generations that are printed after a cycle, the newest ones.
_SHOWN = 7


def configure(overrides: Sequence[str]) -> RecurConfig:
    """Compose conf/recur_run.yaml."""
    return compose("recur_run", RecurConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Run a cycle, and say what it came to."""
    config = configure(overrides)
    for outcome in run_cycle(config):
        _say(outcome)
    print_status(Generations(Path(config.folder)), _SHOWN)


def _say(outcome: Outcome) -> None:
    console = message_console()
    if outcome.generation is None:
        console.print("Nothing new has come: the generation that is served stays.")
        return
    number, why = outcome.generation.number, outcome.generation.why
    if why is not None:
        console.print(f"Generation {number} is not served: {why}.")
    elif outcome.generation.state == REFRESHED:
        published, served = outcome.generation.done[PUBLISHED], outcome.generation.base
        console.print(
            f"Generation {served} stays served; its embeddings are as of "
            f"{to_text(published['as_of'])}, {published['published_users']:,} of "
            f"{published['active_users']:,} users were published anew."
        )
    else:
        console.print(f"Generation {number} is served.")
    if outcome.removed:
        removed = ", ".join(map(str, outcome.removed))
        console.print(f"Runs of older generations were removed: {removed}.")
