"""The `recsys` command with a rank that does something odd in its fourth step."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch.distributed as dist

from recsys.cli.main import invoke
from recsys.distributed import processes
from recsys.runs.rank_watch import RankWatch
from recsys.systems.dv365.module import DV365

KIND = os.environ["HANGING"]
step = DV365.training_step


def odd_step(self, *given):  # type: ignore[no-untyped-def]
    if dist.get_rank() == 1:
        if KIND == "slow":
            time.sleep(1.0)
        elif self.trainer.global_step == 3:
            if KIND == "sleeps":
                time.sleep(600)
            elif KIND == "stands still":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif KIND == "another exchange":
                dist.barrier(processes.hosts_group())
    return step(self, *given)


RankWatch.__init__.__defaults__ = (2.0,)  # seconds of a window
DV365.training_step = odd_step  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(invoke(sys.argv[1:]))
