"""What a service serves: immutable generations, of which one pointer says which is current.

```
service.json                       says that the folder is one of a service
current.json                       {"generation": 12}; replaced in one step
point.json                         {"point": "busy"}, which was asked for last; likewise
generations/000012/generation.json the funnel, with all its settings, and the data set it is for
events/                            what was reported, of all generations (``LiveEvents``)
ledger/000012/                     what the generation did; at an operating point 000012.busy
feed/000012/                       its cache of scores, where the funnel has one
lists/000012/                      lists that it made before, by user
openings/                          of the app, and lists made then
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from omegaconf import OmegaConf

from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.folders import FolderKind, check_folder, locked_folder
from recsys.core.json_files import read_json, write_json
from recsys.core.schemas import instantiate, structured
from recsys.serving.funnel.cache.config import CacheConfig
from recsys.serving.funnel.config import FunnelConfig

_T = TypeVar("_T")

_CURRENT, _GENERATION = "current.json", "generation.json"
_CURRENT_KIND = "pointer to the generation of a service"
_GENERATION_KIND = "generation of a service"
_POINT, _POINT_KIND = "point.json", "operating point of a service"
_MARKER, _MARKER_KIND = "service.json", "state of a service"
_FOLDER = FolderKind("the state of a service", _MARKER, ("generations_in",), ("*",))
_GENERATIONS = "generations"


@dataclass(frozen=True)
class Generation:
    """What is served.

    Attributes:
        funnel: as declared.
        dataset: folder of the prepared data set.
        fingerprint: of the data set; another one once days were appended.
        points: operating points by name: the funnel's cache as it is there.
        number: from 1; 0 while it has none.
    """

    funnel: FunnelConfig
    dataset: Path
    fingerprint: str
    points: Mapping[str, CacheConfig] = field(default_factory=dict)
    number: int = 0

    def declared(self, point: str | None) -> FunnelConfig:
        """The funnel at an operating point; as it is where that is None."""
        return self.funnel if point is None else replace(self.funnel, cache=self.points[point])

    @property
    def makes_lists_in_advance(self) -> bool:
        """Whether it makes lists when users open the app, at any operating point."""
        caches = [self.funnel.cache, *self.points.values()]
        return any(one.prefetch.models is not None for one in caches)

    def known_point(self, point: str | None) -> str | None:
        """An operating point, as it may be asked for.

        Raises:
            ConfigError: there is none of that name.
        """
        if point is None or point in self.points:
            return point
        raise ConfigError(
            f"point={point}: the generation that is served has no operating point of that name; it "
            f"has {', '.join(self.points) or 'none (recsys service swap points=… brings some)'}."
        )


class ServiceState:
    """The folder of a service.

    Args:
        folder: is made with the first generation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events, self.openings = folder / "events", folder / "openings"

    def ledger(self, number: int, point: str | None = None) -> Path:
        """Where a generation notes its requests, at an operating point or at none."""
        suffix = "" if point is None else f".{quote(point, safe='')}"
        return self.folder / "ledger" / f"{number:06d}{suffix}"

    def ledgers(self) -> list[Path]:
        """Of all generations, the newest first."""
        return sorted((self.folder / "ledger").iterdir(), reverse=True)

    def lists(self, number: int) -> Path:
        """Where the lists are that were made before by a generation."""
        return self.folder / "lists" / f"{number:06d}"

    def feed(self, number: int) -> Path:
        """Where the cache of a generation's funnel is, if it has one."""
        return self.folder / "feed" / f"{number:06d}"

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever served of it."""
        return not (self.folder / _CURRENT).exists()

    def current(self) -> Generation:
        """The generation that is served.

        Raises:
            ArtifactError: there is none, or a part of it is missing or damaged.
        """
        mend = "name one with `recsys serve funnel=… dataset=… state=…`."
        content = read_json(self.folder / _CURRENT, _CURRENT_KIND, ArtifactError, mend)
        return self.read(content["generation"])

    def read(self, number: int) -> Generation:
        """A generation.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        mend = "serve another one with `recsys service rollback`."
        path = self._place(number) / _GENERATION
        content = read_json(path, _GENERATION_KIND, ArtifactError, mend)
        funnel = _instance(FunnelConfig, content["funnel"])
        points = {
            name: _instance(CacheConfig, cache) for name, cache in content.get("points", {}).items()
        }
        dataset, fingerprint = Path(content["dataset"]), content["fingerprint"]
        return Generation(funnel, dataset, fingerprint, points, number)

    def add(self, generation: Generation) -> Generation:
        """Keep a generation under the next number; it is not served yet.

        Raises:
            ConfigError: the folder holds something else.
        """
        check_folder(self.folder, _FOLDER, [generation.dataset])
        with locked_folder(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / _MARKER).exists():
                write_json(self.folder / _MARKER, _MARKER_KIND, {"generations_in": _GENERATIONS})
            number = 1 + max(self.numbers(), default=0)
            self._place(number).mkdir(parents=True)
            content = {
                "funnel": OmegaConf.to_yaml(structured(generation.funnel)),
                "dataset": str(generation.dataset),
                "fingerprint": generation.fingerprint,
                "points": {
                    name: OmegaConf.to_yaml(structured(cache))
                    for name, cache in generation.points.items()
                },
            }
            write_json(self._place(number) / _GENERATION, _GENERATION_KIND, content)
        return self.read(number)

    def serve(self, number: int) -> None:
        """Point to a generation, in one step; a running service takes it up."""
        write_json(self.folder / _CURRENT, _CURRENT_KIND, {"generation": number})

    def go_over(self, point: str | None) -> None:
        """Ask for an operating point, in one step; a running service takes it up."""
        write_json(self.folder / _POINT, _POINT_KIND, {"point": point})

    def point(self) -> str | None:
        """The operating point that was asked for last; None for none.

        Raises:
            ArtifactError: the file is damaged.
        """
        if not (self.folder / _POINT).exists():
            return None
        mend = "ask for one with `recsys service point`."
        content = read_json(self.folder / _POINT, _POINT_KIND, ArtifactError, mend)
        found: str | None = content["point"]
        return found

    def before(self, number: int | None) -> int:
        """The generation that is to be served again: of a number, or the one before the current.

        Raises:
            ConfigError: there is none.
        """
        known = self.numbers()
        wanted = number
        if wanted is None:
            current = self.current().number
            wanted = max((one for one in known if one < current), default=0)
        if wanted not in known:
            raise ConfigError(
                f"{self.folder} has no generation {number or 'before the one that is served'}; it "
                f"has {', '.join(map(str, known)) or 'none'}."
            )
        return wanted

    def numbers(self) -> list[int]:
        """The generations that there are, the oldest first."""
        found = (self.folder / _GENERATIONS).glob(f"*/{_GENERATION}")
        return sorted(int(path.parent.name) for path in found)

    def stamp(self) -> tuple[int, ...]:
        """Another one whenever the pointer, or the operating point, was replaced."""
        files = [self.folder / name for name in (_CURRENT, _POINT)]
        stats = [file.stat() for file in files if file.exists()]
        return tuple(number for one in stats for number in (one.st_ino, one.st_mtime_ns))

    def _place(self, number: int) -> Path:
        return self.folder / _GENERATIONS / f"{number:06d}"


def _instance(kind: type[_T], content: str) -> _T:
    """Settings as they were written."""
    merged = OmegaConf.merge(structured(kind), OmegaConf.create(content))
    return instantiate(kind, merged)  # type: ignore[arg-type]
