"""The description of a data set without anything: a test says what it needs of one."""

from __future__ import annotations

from recsys.data.contract.manifest import DatasetManifest

EMPTY = DatasetManifest(
    name="test",
    source="test",
    tasks=(),
    features=(),
    vocabulary_sizes={},
    surfaces=(),
    media_types=(),
    split_bounds={},
    counts={},
    rejected={},
    fingerprint="",
)
