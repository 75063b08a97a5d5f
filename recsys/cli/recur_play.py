"""`recsys recur play`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from recsys.cli.online import print_comparison, without_nan
from recsys.cli.recur_learn import told
from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.data.contract.moments import to_text
from recsys.recurring.play import PlayConfig, Trained, play_learning


def configure(overrides: Sequence[str]) -> PlayConfig:
    """Compose conf/recur_play.yaml."""
    return compose("recur_play", PlayConfig, overrides)


def run(overrides: Sequence[str], as_object: bool = False) -> None:
    """Play both, print the table, and say what came of each training."""
    config = configure(overrides)
    found, trained = play_learning(config)
    print_comparison(f"{config.online.tried} learning", config.online.against, found)
    console = output_console()
    for one in trained:
        console.print(f"{to_text(one.moment)}: {_sentence(one)}")
    if as_object:
        both = {**asdict(found), "trained": [asdict(one) for one in trained]}
        console.print(json.dumps(without_nan(both)))


def _sentence(one: Trained) -> str:
    if one.measured is None:
        return f"nothing was learned of the {one.stage} stage: {one.why}"
    worse = " It is surely worse, and is not taken up." if one.measured.is_worse else ""
    return told(one.stage, one.measured) + worse
