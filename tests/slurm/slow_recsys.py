"""The `recsys` command with steps that take a while, so that a test can act in between."""

from __future__ import annotations

import time

from recsys.cli.main import main
from recsys.systems.dv365.module import DV365

step = DV365.training_step


def slow_step(*given):  # type: ignore[no-untyped-def]
    time.sleep(0.3)
    return step(*given)


DV365.training_step = slow_step  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
