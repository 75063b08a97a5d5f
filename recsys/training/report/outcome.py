"""What came out of a run, in a few lines: the closing table and the head of the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.table import Table

from recsys.data.moments import to_text
from recsys.training.load import load_config
from recsys.training.metrics_file import Metrics, read_metrics_file
from recsys.training.report.page import closing_table, megabytes, places
from recsys.training.systems.dv365 import DV365RunConfig

#: Where `recsys export` and `recsys publish` leave what they made, below the run folder.
ARTIFACT = "artifact"
PUBLICATION_FILE = "publication.json"
#: In front of the metrics of the choose split with the exported tower and 4-bit embeddings; those
#: of the same rows without quantisation have ``trained/`` behind it.
EXPORT_PREFIX = "export/val"


@dataclass(frozen=True)
class Outcome:
    """A run, the run it is compared with, the exported tower and the published embeddings.

    Attributes:
        folder: the run folder.
        against: the folder of the other run.
        dataset: the folder of the prepared data set.
        labels: what the two runs are called in figures.
        metrics: of the run.
        control: metrics of the other run.
        sizes: ``sizes`` of the artifact's manifest; empty where nothing was exported.
        publication: what `recsys publish` reported; empty where nothing was published.
    """

    folder: Path
    against: Path | None
    dataset: Path
    labels: tuple[str, str]
    metrics: Metrics
    control: Metrics
    sizes: dict[str, float]
    publication: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, against: Path | None, dataset: Path) -> Outcome:
        """Gather it from the folders."""
        manifest = _read(folder / ARTIFACT / "manifest.json")
        return cls(
            folder,
            against,
            dataset,
            _labels(folder, against),
            read_metrics_file(folder),
            read_metrics_file(against) if against is not None else {},
            manifest.get("sizes", {}),
            _read(folder / PUBLICATION_FILE),
        )

    @property
    def prefix(self) -> str:
        """``report`` where the run was evaluated, otherwise ``val``."""
        return "report" if "report/ne/mean" in self.metrics else "val"

    def numbers(self) -> dict[str, str]:
        """The few numbers of the run, by name."""
        prefix = self.prefix
        rows = {
            "mean NE": self._value(f"{prefix}/ne/mean"),
            f"mean NE, {self.labels[1]}": _form(self.control.get(f"{prefix}/ne/mean"), "{:.4f}"),
            "best mean NE in reach": self._value(f"{prefix}/best_within_reach/ne/mean"),
            "best mean NE": self._value(f"{prefix}/best_absolute/ne/mean"),
            "gain captured": self._value(f"{prefix}/gain_captured/mean", "{:.1%}"),
        }
        return {name: value for name, value in rows.items() if value}

    def tiles(self) -> list[dict[str, Any]]:
        """The head of the report."""
        accents = ("mean NE", "gain captured")
        tiles = [
            {"name": name, "value": value, "accent": name in accents}
            for name, value in self.numbers().items()
        ]
        if self.sizes:
            factor = f"{self.sizes['embedding_compression']:.1f} x"
            tiles.append({"name": "smaller user embedding", "value": factor, "accent": False})
        return tiles

    def places(self) -> dict[str, str]:
        """Where everything lies, with its size."""
        others = {"prepared data set": self.dataset}
        if self.against is not None:
            others["compared with"] = self.against
        if self.sizes:
            others["artifact"] = self.folder / ARTIFACT
        if "store" in self.publication:
            others["embedding store"] = Path(self.publication["store"])
        return places(self.folder, others)

    def export_lines(self) -> dict[str, str]:
        """NE and sizes before and after quantisation."""
        if not self.sizes:
            return {}
        sizes = self.sizes
        lines: dict[str, str] = {}
        if change := self._value(f"{EXPORT_PREFIX}/ne_delta/mean", "{:+.2%}"):
            after = self._value(f"{EXPORT_PREFIX}/ne/mean")
            before = self._value(f"{EXPORT_PREFIX}/trained/ne/mean")
            lines["mean NE exported"] = (
                f"{after} quantised, {before} before ({change}; split choose)"
            )
        lines |= {
            "embedding tables": (
                f"{megabytes(sizes['tables_float32_bytes'])} in float32, "
                f"{megabytes(sizes['tables_bytes'])} exported "
                f"({sizes['tables_compression']:.1f} times smaller)"
            ),
            "one user embedding": (
                f"{sizes['embedding_float32_bytes']:,.0f} bytes in float32, "
                f"{sizes['embedding_bytes']:,.0f} published "
                f"({sizes['embedding_compression']:.1f} times smaller)"
            ),
        }
        if self.publication:
            active, written = self.publication["active_users"], self.publication["published_users"]
            speed = f", {self.publication['users_per_second']:,.0f} a second" if written else ""
            as_of = to_text(self.publication["as_of"])
            lines["last publication"] = (
                f"{active:,} users as of {as_of}; {written:,} of them written anew{speed}"
            )
        return lines

    def table(self) -> Table:
        """The table a run ends with."""
        config = cast(DV365RunConfig, load_config(self.folder))
        trained = f"DV365, encoder {config.encoder.name}, width {config.model.dimension}"
        lines = {"trained": f"{trained}, on {config.data.title}"}
        return closing_table(
            config.name, lines | self.numbers() | self.export_lines(), self.places()
        )

    def _value(self, name: str, form: str = "{:.4f}") -> str:
        return _form(self.metrics.get(name), form)


def _labels(folder: Path, against: Path | None) -> tuple[str, str]:
    """With and without timelines where the two runs differ in that, otherwise their folders."""
    if against is None:
        return str(folder), ""
    with_timelines = [_has_timelines(run) for run in (folder, against)]
    if with_timelines[0] == with_timelines[1]:
        return str(folder), str(against)
    names = {True: "with timelines", False: "without timelines"}
    return names[with_timelines[0]], names[with_timelines[1]]


def _has_timelines(run_dir: Path) -> bool:
    config = load_config(run_dir)
    return (
        isinstance(config, DV365RunConfig)
        and config.encoder.name != "none"
        and not config.loader.without_timelines
    )


def _form(metric: dict[str, Any] | None, form: str) -> str:
    return form.format(metric["value"]) if metric and metric["value"] is not None else ""


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content
