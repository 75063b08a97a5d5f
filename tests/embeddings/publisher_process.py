"""Publishes the same users again and again, each time with other rows; killed by the test."""

from __future__ import annotations

import sys

import numpy as np

from recsys.embeddings.stores import open_store

if __name__ == "__main__":
    location, users = sys.argv[1], range(int(sys.argv[2]))
    with open_store(location) as store:
        while True:
            version = store.begin(timestamp=0, details={}).version
            for start in range(0, len(users), 5):
                chunk = list(users[start : start + 5])
                store.put_many(chunk, np.full((len(chunk), 2, 3), version))
            store.commit()
            store.prune()
            print(version, flush=True)
