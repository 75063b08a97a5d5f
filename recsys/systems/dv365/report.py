"""What the report shows of a run of DV365, and the table a run ends with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.artifacts.manifest import ARTIFACT, read_manifest_if_any
from recsys.core.environment import read_environment
from recsys.core.secrets import mask_address
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split, TimelineKind
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.dataset import PreparedDataset
from recsys.reports import figures, task_material, task_sections
from recsys.reports.page import (
    Page,
    Section,
    closing_table,
    megabytes,
    places,
    revision,
    setting,
)
from recsys.reports.task_material import TaskMaterial
from recsys.reports.task_tables import EXPORTED, metric_rows
from recsys.runs.files import EXPORT_PREFIX
from recsys.runs.load import load_config
from recsys.runs.publication import read_publication
from recsys.systems.dv365.config import DV365RunConfig

#: Requests whose slices are counted for the occupancy figure.
OCCUPANCY_REQUESTS = 500

Material = TaskMaterial[DV365RunConfig]


@dataclass(frozen=True)
class Exported:
    """What `recsys export` and `recsys publish` have left of a run.

    Attributes:
        sizes: ``sizes`` of the artifact's manifest; empty where nothing was exported.
        publication: what `recsys publish` reported; empty where nothing was published.
    """

    sizes: dict[str, float]
    publication: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Exported:
        """Read it from the run folder."""
        manifest = read_manifest_if_any(folder / ARTIFACT)
        return cls(manifest.get("sizes", {}), read_publication(folder))


def read_material(
    folder: Path, against: Path | None, dataset_folder: str | None = None
) -> Material:
    """Read what the report shows.

    Args:
        folder: the run folder.
        against: the folder of the run it was evaluated against.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: a folder is no run, a file of it is damaged, or the run was not evaluated
            against what lies in ``against`` now.
    """
    config = load_config(folder, DV365RunConfig)
    labels = _labels(folder, config, against)
    return task_material.read_material(folder, against, labels, config, dataset_folder)


def report_page(material: Material) -> Page:
    """The page and the table a run ends with."""
    folder, config = material.folder, material.config
    exported = Exported.of(folder)
    environment = read_environment(folder)
    lie = places_of(material, exported)
    return Page(
        folder=folder,
        title=config.name,
        subtitle=_subtitle(material, environment),
        headline=material.headline(),
        tiles=_tiles(material, exported),
        sections=list(_sections(material, exported, lie, environment)),
        closing=closing_table(
            config.name,
            {
                "trained": f"DV365, encoder {config.encoder.name}, width {config.model.dimension}, "
                f"on {config.data.title}"
            }
            | material.numbers()
            | export_lines(material, exported),
            lie,
        ),
    )


def export_lines(material: Material, exported: Exported) -> dict[str, str]:
    """NE and sizes before and after quantisation."""
    sizes, publication = exported.sizes, exported.publication
    if not sizes:
        return {}
    lines: dict[str, str] = {}
    if change := material.value(f"{EXPORT_PREFIX}/ne_delta/mean", "{:+.2%}"):
        after = material.value(f"{EXPORT_PREFIX}/ne/mean")
        before = material.value(f"{EXPORT_PREFIX}/trained/ne/mean")
        lines["mean NE exported"] = f"{after} quantised, {before} before ({change}; split choose)"
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
    if publication:
        active, written = publication["active_users"], publication["published_users"]
        speed = f", {publication['users_per_second']:,.0f} a second" if written else ""
        lines["last publication"] = (
            f"{active:,} users as of {to_text(publication['as_of'])}; {written:,} of them written "
            f"anew{speed}"
        )
    return lines


def _tiles(material: Material, exported: Exported) -> list[dict[str, Any]]:
    tiles = material.tiles()
    if exported.sizes:
        factor = f"{exported.sizes['embedding_compression']:.1f} x"
        tiles.append({"name": "smaller user embedding", "value": factor, "accent": False})
    return tiles


def places_of(material: Material, exported: Exported) -> dict[str, str]:
    """Where everything lies, with its size."""
    others: dict[str, Path | str] = {"prepared data set": material.dataset.path}
    if material.against is not None:
        others["compared with"] = material.against
    if exported.sizes:
        others["artifact"] = material.folder / ARTIFACT
    if "store" in exported.publication:
        others["embedding store"] = mask_address(exported.publication["store"])
    return places(material.folder, others)


def _subtitle(material: Material, environment: dict[str, Any]) -> str:
    manifest = material.trained_on
    return (
        f"Trained on {manifest.name}: {manifest.counts['events']:,} events of "
        f"{manifest.counts['users']:,} users, {manifest.counts['rows_fit']:,} rows to fit"
        f"{revision(environment)}"
    )


def _sections(
    material: Material, exported: Exported, lie: dict[str, str], environment: dict[str, Any]
) -> Iterator[Section]:
    yield task_sections.measured(material)
    yield from task_sections.beside(material)
    yield from task_sections.comparison(material)
    yield task_sections.training(material)
    yield from task_sections.predictions(material)
    if material.config.encoder.name != "none":
        yield _slices(material)
    if lines := export_lines(material, exported):
        yield _export(material, lines)
    yield task_sections.data(material, {})
    yield Section("Where everything lies", facts=lie)
    yield _setting(material, environment)


def _slices(material: Material) -> Section:
    shares = slice_occupancy(
        material.config, material.dataset, DatasetManifest.load(material.folder)
    )
    empty = [name for name, share in shares.items() if share == 0]
    note = "How often a slice has something to pool, over requests of the split choose."
    if empty:
        note += f" {len(empty)} of {len(shares)} are never filled."
    return Section(
        "Slices",
        note=note,
        figure=figures.occupancy(shares),
        text_title="never filled",
        text="\n".join(empty),
    )


def _export(material: Material, lines: dict[str, str]) -> Section:
    """Metrics with and without quantisation; the sizes alone where they were not measured."""
    rows = metric_rows(material.metrics, EXPORT_PREFIX, EXPORTED)
    note = ""
    if measured := material.metrics.get(f"{EXPORT_PREFIX}/ne/mean"):
        note = (
            "The same rows scored with the trained tower, and with the exported one after its "
            f"embeddings went through 4-bit rows. {measured['protocol']}"
        )
    return Section(
        "Export and publication",
        note=note,
        rows=rows if len(rows) > 1 else [],
        facts=lines,
    )


def _setting(material: Material, environment: dict[str, Any]) -> Section:
    config = material.config
    facts = {
        "encoder": config.encoder.name,
        "width": str(config.model.dimension),
        "gap": f"{config.loader.gap_hours:g} hours",
        "batch": f"{config.loader.batch_requests} requests",
    }
    return setting(config, environment, facts)


def _labels(folder: Path, config: DV365RunConfig, against: Path | None) -> tuple[str, str]:
    """With and without timelines where the two runs differ in that, otherwise their folders."""
    if against is None:
        return str(folder), ""
    with_timelines = [_has_timelines(one) for one in (config, load_config(against, DV365RunConfig))]
    if with_timelines[0] == with_timelines[1]:
        return str(folder), str(against)
    names = {True: "with timelines", False: "without timelines"}
    return names[with_timelines[0]], names[with_timelines[1]]


def _has_timelines(config: DV365RunConfig) -> bool:
    return config.encoder.name != "none" and not config.loader.without_timelines


def slice_occupancy(
    config: DV365RunConfig, dataset: PreparedDataset, manifest: DatasetManifest
) -> dict[str, float]:
    """Share of requests for which each slice holds an event, over some requests of choose.

    Args:
        config: of the run.
        dataset: the prepared data set.
        manifest: of it when the run was trained.
    """
    slice_set = SliceSet.of(config.slices, manifest)
    store = dataset.requests(Split.CHOOSE)
    step = max(1, len(store) // OCCUPANCY_REQUESTS)
    filled = np.zeros(len(slice_set.slices), np.int64)
    chosen = np.arange(0, len(store), step)[:OCCUPANCY_REQUESTS]
    gap = round(config.loader.gap_hours * MILLISECONDS_PER_HOUR)
    for request in chosen:
        user, moment = store.user[request : request + 1], store.request_time[request : request + 1]
        explicit, implicit = (
            dataset.timelines.histories(user, moment - gap, kind, config.loader.max_events)
            for kind in (TimelineKind.EXPLICIT, TimelineKind.IMPLICIT)
        )
        filled += slice_set.slice_counts(explicit, implicit, moment) > 0
    names = (one.name for one in slice_set.slices)
    return dict(zip(names, (filled / len(chosen)).tolist(), strict=True))
