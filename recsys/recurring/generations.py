"""The folder of a recurring training: its generations, and which one is served.

``current.json`` says which; it is replaced in one step, so a reader sees the old or the new one.
``generations/<number>/`` has ``cycle.json`` (what has been done for it), ``run/`` with the
artifact, and ``run/embeddings`` as they were published. A cycle that trains nothing has its number
and ``cycle.json`` alone: it publishes into the store of the generation that is served.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.folders import FolderKind, check_folder
from recsys.core.json_files import read_json, write_json
from recsys.runs.files import LOCK_FILE, LOGS
from recsys.runs.folder import held

GENERATIONS = "generations"
CURRENT_FILE = "current.json"
CYCLE_FILE = "cycle.json"
RUN = "run"

#: What becomes of a generation.
RUNNING, SERVED, REFUSED, WITHDRAWN = "running", "served", "refused", "withdrawn"
#: What becomes of one without a run: the embeddings of its base were published anew.
REFRESHED = "refreshed"

#: The steps of a generation, in their order.
STEPS = APPENDED, TRAINED, MEASURED, COMPARED, EXPORTED, TRIED, PUBLISHED = (
    "appended",
    "trained",
    "measured",
    "compared",
    "exported",
    "tried",
    "published",
)
#: Of what was appended to: the fingerprint of the data set as it then was.
DATASET = "dataset"

_KIND = "generation of a recurring training"
_CURRENT_KIND = "which generation is served"
#: A run that is being removed.
_REMOVED = "removed"
_FOLDER_FILE = "recurring.json"
_FOLDER_KIND = "recurring training"
_FOLDER = FolderKind(
    "a recurring training",
    _FOLDER_FILE,
    ("generations_in",),
    ("*",),
)


@dataclass(frozen=True)
class Generation:
    """One generation.

    Attributes:
        number: from 1 on.
        state: running, served (it was, or is), refused by the gate, withdrawn by a rollback, or
            refreshed: it has no run, the embeddings of its base were published anew.
        base: the generation that was served when it began; None for the first.
        done: what each step found, by its name, in the order of the steps.
        why: why it was refused; None where it was not.
    """

    number: int
    state: str = RUNNING
    base: int | None = None
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    why: str | None = None

    @property
    def newest_day(self) -> tuple[int, int] | None:
        """Begin and end of the newest day that it has seen, ms; None before it has seen one."""
        found = self.done.get(TRAINED) or self.done.get(PUBLISHED)
        return None if found is None else (found["report_from"], found["report_until"])


class Generations:
    """The generations of a folder.

    Args:
        folder: of the recurring training.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder where it is absent, and keep other cycles out until the block ends.

        Raises:
            ConfigError: another cycle is running there, or the folder holds something else.
        """
        if not self._is_about_to_begin():
            check_folder(self.folder, _FOLDER)
        with held(self.folder, "runs a cycle in", "folder"):
            if not (self.folder / _FOLDER_FILE).exists():
                write_json(
                    self.folder / _FOLDER_FILE, _FOLDER_KIND, {"generations_in": GENERATIONS}
                )
            yield

    def _is_about_to_begin(self) -> bool:
        """Whether a cycle was killed before it had begun, or a launcher has left its script."""
        there = {one.name for one in self.folder.iterdir()} if self.folder.is_dir() else set()
        return bool(there) and there <= {LOCK_FILE, LOGS}

    def check(self) -> None:
        """Refuse a folder without a recurring training.

        Raises:
            ConfigError: there is none.
        """
        if not _FOLDER.made(self.folder):
            raise ConfigError(
                f"{self.folder} holds no recurring training; begin one with recsys recur run "
                "folder=…"
            )

    def all(self) -> list[Generation]:
        """Every generation, the oldest first.

        Raises:
            ArtifactError: what is known of one is damaged.
        """
        found = (self.folder / GENERATIONS).glob(f"*/{CYCLE_FILE}")
        return sorted((_read(path) for path in found), key=lambda one: one.number)

    def current(self) -> Generation | None:
        """The one that is served; None before the first.

        Raises:
            ArtifactError: the file that says so is damaged.
        """
        path = self.folder / CURRENT_FILE
        if not path.exists():
            return None
        mend = "name a generation that was served by recsys recur rollback."
        number = read_json(path, _CURRENT_KIND, ArtifactError, mend)["generation"]
        return _read(self.place(number) / CYCLE_FILE)

    def next(self, current: Generation | None) -> Generation:
        """A new one, which is not kept yet."""
        known = self.all()
        number = known[-1].number + 1 if known else 1
        return Generation(number, base=current.number if current else None)

    def unfinished(self) -> Generation | None:
        """The one that was being made when its cycle was cut off, or was about to be served."""
        known, current = self.all(), self.current()
        if not known:
            return None
        newest = known[-1]
        is_behind = newest.number > (current.number if current else 0)
        waits = newest.state == SERVED and is_behind
        return newest if newest.state == RUNNING or waits else None

    def newest_dataset(self) -> str | None:
        """The fingerprint of the data set that the newest one has seen, where it says so."""
        known = self.all()
        return known[-1].done[APPENDED].get(DATASET) if known else None

    def place(self, number: int) -> Path:
        """The folder of a generation."""
        return self.folder / GENERATIONS / f"{number:06d}"

    def run_dir(self, generation: Generation) -> Path:
        """The run folder of a generation."""
        return self.place(generation.number) / RUN

    def write(self, generation: Generation) -> Generation:
        """Keep what is known of a generation."""
        place = self.place(generation.number)
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / CYCLE_FILE, _KIND, asdict(generation))
        return generation

    def serve(self, generation: Generation) -> None:
        """Point to a generation, in one step."""
        write_json(self.folder / CURRENT_FILE, _CURRENT_KIND, {"generation": generation.number})

    def roll_back(self) -> tuple[Generation, Generation]:
        """Serve the generation before the current one again.

        Returns:
            The one that is withdrawn, and the one that is served now.

        Raises:
            ConfigError: there is none before it.
        """
        current = self.current()
        before = [
            one
            for one in self.all()
            if current is not None
            and one.state == SERVED
            and one.number < current.number
            and self.run_dir(one).exists()
        ]
        if current is None or not before:
            raise ConfigError(
                f"{self.folder} has no generation before the one that is served, so there is "
                "nothing to go back to."
            )
        # in this order: what says that it is served and is not, the next cycle would serve
        withdrawn = self.write(replace(current, state=WITHDRAWN))
        self.serve(before[-1])
        return withdrawn, before[-1]

    def remove_old(self, keep: int) -> list[int]:
        """Remove the runs of all but the newest generations; what is known of them stays.

        Args:
            keep: how many that were served are kept, and how many that were refused or withdrawn.
        """
        current, known = self.current(), self.all()
        served = [one.number for one in known if one.state == SERVED]
        others = [one.number for one in known if one.state in (REFUSED, WITHDRAWN)]
        kept = {*served[-keep:], *others[-keep:], current.number if current else 0}
        removed = []
        for one in known:
            run, gone = self.run_dir(one), self.place(one.number) / _REMOVED
            if one.number not in kept and one.state != RUNNING and run.exists():
                run.rename(gone)  # in one step: half of a run is none to go back to
                removed.append(one.number)
            shutil.rmtree(gone, ignore_errors=True)
        return removed


def _read(path: Path) -> Generation:
    mend = f"remove {path.parent} if it is not the one that is served."
    content = read_json(path, _KIND, ArtifactError, mend)
    return Generation(**content)
