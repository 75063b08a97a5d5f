"""Publishes in small transactions, says so at the first and does not end; killed by the test."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from recsys.embeddings import publish as module
from recsys.embeddings.compute import TimelineEmbedder
from tests.systems.dv365.towers import NOW

if __name__ == "__main__":
    folder, location = Path(sys.argv[1]), sys.argv[2]
    module._USERS_PER_WRITE = 1  # a transaction per call of the tower
    compute = TimelineEmbedder.rows
    calls = 0

    def compute_and_tell(self, users):  # type: ignore[no-untyped-def]
        global calls
        calls += 1
        if calls == 6:
            print("writing", flush=True)
        if calls == 26:  # of some forty, one for each user
            time.sleep(600)  # until it is killed, however fast it came here
        return compute(self, users)

    TimelineEmbedder.rows = compute_and_tell  # type: ignore[method-assign]
    module.publish(
        module.PublishConfig(
            run_dir=str(folder / "run"),
            dataset=str(folder / "data"),
            as_of=str(NOW),
            store=location,
            only_changed=False,
            retention_days=20,
            batch_users=1,  # the bits of other batches may differ
        )
    )
