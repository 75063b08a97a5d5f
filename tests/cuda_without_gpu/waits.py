"""`python -m tests.cuda_without_gpu.waits`: what a step of every system waits for, as a table."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

from tests.cuda_without_gpu.systems import FOLLOWED, write_log
from tests.cuda_without_gpu.training import train


def main() -> None:
    """Print the waits of the last followed step."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print("| system | waits a step | of them, by function |\n|---|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder))
        for name, followed in FOLLOWED.items():
            waits = train(followed, Path(folder)).waits[-1]
            parts = [f"{count} {short(noted)}" for noted, count in waits.most_common()]
            print(f"| {name} | {waits.total()} | {', '.join(parts)} |", flush=True)


def short(noted: str) -> str:
    """What was waited for and the function, without its file."""
    what, _, place = noted.partition(" in ")
    return f"{what} (`{place.split()[-1]}`)"


if __name__ == "__main__":
    main()
