"""A process of a training that goes on with the processes that are left: started by torchrun.

`launchers/torchrun/run` has torchrun start it in place of `recsys train` where workers are to be
restarted. It tells the training how many processes there are now, and whether it goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from recsys.cli.launch.tasks import TRAIN, World
from recsys.cli.main import invoke
from recsys.distributed.meeting import meet
from recsys.runs.files import CONFIG_FILE

#: Stands between the settings of a training that begins and of one that goes on.
AND_THEN = "--then"
#: How long the processes wait for each other.
_WAIT = timedelta(minutes=10)


def main() -> None:
    """Train, or go on, on as many processes as torchrun has brought together this time."""
    run_dir, *words = sys.argv[1:]
    cut = words.index(AND_THEN)
    processes, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    # the first says for all whether there is a run: later it makes one
    store, rank = meet(processes, _WAIT)
    if rank == 0:
        store.set("begun", str((Path(run_dir) / CONFIG_FILE).exists()))
    begun = store.get("begun") == b"True"
    settings = settings_now(words[:cut], words[cut + 1 :], begun, World(processes // here, here))
    sys.exit(invoke([TRAIN, *settings]))  # the store stays open until then


def settings_now(first: Sequence[str], then: Sequence[str], begun: bool, world: World) -> list[str]:
    """Settings of `recsys train` on the processes that there are.

    Args:
        first: of a run that begins.
        then: of one that goes on.
        begun: whether it has.
        world: the processes.
    """
    counted = {setting.partition("=")[0] for setting in world.settings}
    chosen = then if begun else first
    others = [setting for setting in chosen if setting.partition("=")[0] not in counted]
    return [*others, *world.settings]


if __name__ == "__main__":
    main()
