"""`python -m tests.cuda_without_gpu.step_table`: what a step of every system does, as a table."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

from tests.cuda_without_gpu.systems import FOLLOWED, write_log
from tests.cuda_without_gpu.training import train

#: A longer log than the tests', so that a history's length tells.
ITEMS, EVENTS = 200, 100
LONGER = {
    "nxtpost": ("loader.max_length=100",),
    "sasrec": ("loader.max_length=100",),
    "hstu": ("loader.max_length=100",),
    "ranker": ("loader.max_events=100",),
    "two_tower": ("loader.max_length=100",),
    "wide_and_deep": ("loader.max_length=100",),
}


def main() -> None:
    """Print waits, operations and kept bytes of the last followed step."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print("| system | waits a step | operations | kept, MiB | the waits, by function |")
    print("|---|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder, ITEMS, EVENTS)
        for system, followed in FOLLOWED.items():
            longer = (*followed.overrides, *LONGER.get(system, ()))
            trained = train(replace(followed, overrides=longer), folder, validates=False)
            waits, operations = trained.waits[-1], trained.operations[-1]
            kept = f"{trained.kept[-1] / 2**20:.2f}"
            parts = ", ".join(f"{count} {short(noted)}" for noted, count in waits.most_common())
            print(
                f"| {system} | {waits.total()} | {operations} | {kept} | {parts} |",
                flush=True,
            )


def short(noted: str) -> str:
    """What was waited for and the function, without its file."""
    what, _, place = noted.partition(" in ")
    return f"{what} (`{place.split()[-1]}`)"


if __name__ == "__main__":
    main()
