"""The description of a prepared data set, written as ``dataset.json`` beside its stores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys.core.checksums import FileMark
from recsys.core.errors import DataError
from recsys.core.folders import FolderKind
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.schema import (
    ACTION_TYPES,
    NEGATIVE_ACTION_TYPES,
    Feature,
    FeatureKind,
    FeatureSide,
    Task,
    TaskKind,
)

FORMAT_VERSION = 2
DATASET_FILE = "dataset.json"
#: What only commands that prepare or change a data set write, and may replace.
DATASET_FOLDER = FolderKind(
    "a prepared data set",
    DATASET_FILE,
    ("format_version", "fingerprint", "vocabulary_sizes"),
    (
        "inputs.json",
        "checked.json",
        "vocabulary/*.parquet",
        "features/*.npy",
        "features/*.json",
        "features/*.parquet",
        "timelines/*.block",
        "timelines/CURRENT.json",
        "timelines/LOCK",
        "timelines/spill/*",
        "requests/*.bin",
        "requests/*.json",
        "tail/*.parquet",
        "rejected/*.parquet",
        "sequences/*/*.npy",
        "sequences/*/*.bin",
        "sequences/*/engagements.json",
        "counters/*/*.npy",
        "counters/*/counters.json",
    ),
)
#: The end of every sentence about a data set that is not what was written.
PREPARE_AGAIN = "remove the data set's folder and prepare it again with `recsys data prepare`."

#: Among the counts, before the name of an id column: the first index not seen in the fit period.
FIT_VOCABULARY = "fit_vocabulary_"
#: In a manifest's ``preparation``: fingerprints the data set had before days were appended to it.
GROWN_FROM = "grown_from"
#: Among ``counts``: impressions whose dwell time is not known; absent in data sets of before.
WITHOUT_DWELL = "implicit_events_without_dwell_time"
#: What the times of a data set are.
MOMENTS, ORDER = "moments", "order"

_KIND = "description of a data set"


@dataclass(frozen=True)
class DatasetManifest:
    """What a prepared data set holds and how it was made.

    Attributes:
        name: name of the data set, part of every metric's protocol.
        source: adapter that read it.
        tasks: labels of the request rows, in the order of the label columns.
        features: backbone inputs; per side and kind their order is the column order of the
            feature arrays. The ids of user, item, author and topic are categorical features too.
        vocabulary_sizes: per id column (``user``, ``item``, ``author``, ``topic``) the number of
            indices, the unknown id 0 included.
        surfaces: names of the ``surface`` codes; media_types likewise.
        split_bounds: per split ``[first, last)`` request time in ms.
        counts: events, requests and rows, by name.
        rejected: rows that could not be used, by reason.
        fingerprint: hash of the preparation's configuration and input files.
        preparation: the configuration the data set was prepared with.
        action_types: names of the action types, ``ACTION_TYPES`` first, then the log's own.
        negative_actions: those of them that say "less of this".
        action_counts: events by action type, of those it has any; empty in data sets of before.
        unknown_actions: rows set aside since their action is unknown, by its name.
        times: ``moments``, or ``order`` where the log has an order only and its times are made up.
        files: size and checksum of every file below the data set's folder, by its path there, but
            those of which a store has a manifest of its own.
    """

    name: str
    source: str
    tasks: tuple[Task, ...]
    features: tuple[Feature, ...]
    vocabulary_sizes: dict[str, int]
    surfaces: tuple[str, ...]
    media_types: tuple[str, ...]
    split_bounds: dict[str, tuple[int, int]]
    counts: dict[str, int]
    rejected: dict[str, int]
    fingerprint: str
    preparation: dict[str, Any] = field(default_factory=dict)
    action_types: tuple[str, ...] = ACTION_TYPES
    negative_actions: tuple[str, ...] = tuple(sorted(NEGATIVE_ACTION_TYPES))
    action_counts: dict[str, int] = field(default_factory=dict)
    unknown_actions: dict[str, int] = field(default_factory=dict)
    times: str = MOMENTS
    files: dict[str, FileMark] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def select(self, side: FeatureSide, kind: FeatureKind) -> tuple[Feature, ...]:
        """The features of one side and kind, in column order."""
        return tuple(f for f in self.features if f.side == side and f.kind == kind)

    @property
    def generation(self) -> int:
        """How often days were appended to it."""
        return len(self.preparation.get(GROWN_FROM, []))

    @property
    def lineage(self) -> tuple[str, ...]:
        """The fingerprints of all its generations, the oldest first."""
        return (*self.preparation.get(GROWN_FROM, []), self.fingerprint)

    @property
    def actions(self) -> ActionTypes:
        """The action types of its events."""
        return ActionTypes(self.action_types, frozenset(self.negative_actions))

    @property
    def has_times(self) -> bool:
        """Whether its timestamps are moments, so that what lies between two says something."""
        return self.times == MOMENTS

    def label_hours(self, task: str) -> float:
        """How long after a row's request an action still counts for its label, in hours.

        0 where the source's rows come with their labels.
        """
        options = self.preparation.get("options", {})
        of_tasks = options.get("task_hours") or {}
        return float(of_tasks.get(task, options.get("attribution_hours", 0.0)))

    def save(self, folder: Path) -> None:
        """Write ``dataset.json`` into ``folder``, in one step."""
        write_json(folder / DATASET_FILE, _KIND, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> DatasetManifest:
        """Read ``dataset.json`` from ``folder``.

        Raises:
            DataError: the folder is no prepared data set, the file is damaged, or it was written
                by another format version.
        """
        path = folder / DATASET_FILE
        if not path.is_file():
            why = f"no {DATASET_FILE} in it" if folder.is_dir() else "the folder does not exist"
            raise DataError(
                f"{folder} is not a prepared data set ({why}); make one with `recsys data prepare`."
            )
        content = read_json(path, _KIND, DataError, PREPARE_AGAIN)
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise DataError(
                f"{path} has format version {version}, this release reads "
                f"version {FORMAT_VERSION}; {PREPARE_AGAIN}"
            )
        content["tasks"] = tuple(
            Task(task["name"], TaskKind(task["kind"])) for task in content["tasks"]
        )
        content["features"] = tuple(
            Feature(f["name"], FeatureSide(f["side"]), FeatureKind(f["kind"]), f["cardinality"])
            for f in content["features"]
        )
        for name in ("surfaces", "media_types", "action_types", "negative_actions"):
            if name in content:
                content[name] = tuple(content[name])
        if content["source"] == "movielens":  # those prepared before this was noted
            content.setdefault("times", ORDER)
        content["split_bounds"] = {k: tuple(v) for k, v in content["split_bounds"].items()}
        content["files"] = {name: FileMark(**mark) for name, mark in content["files"].items()}
        return cls(**content)
