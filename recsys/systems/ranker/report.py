"""What the report shows of a run of the ranker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recsys.artifacts.manifest import ARTIFACT
from recsys.core.environment import read_environment
from recsys.reports import task_material, task_sections
from recsys.reports.page import Page, Section, closing_table, places, revision, setting
from recsys.reports.task_material import TaskMaterial
from recsys.runs.load import load_config
from recsys.systems.ranker.config import RankerRunConfig

Material = TaskMaterial[RankerRunConfig]


def report_page(folder: Path, against: Path | None, dataset_folder: str | None) -> Page:
    """The page and the table a run ends with.

    Args:
        folder: the run folder.
        against: the folder of the run it was evaluated against.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: a folder is no run, a file of it is damaged, or the run was not evaluated
            against what lies in ``against`` now.
    """
    config = load_config(folder, RankerRunConfig)
    labels = (str(folder), "" if against is None else str(against))
    material = task_material.read_material(folder, against, labels, config, dataset_folder)
    environment = read_environment(folder)
    manifest, lie = material.trained_on, _places(material)
    trained = f"ranker ({_made_of(config)}) on {config.data.title}"
    return Page(
        folder=folder,
        title=config.name,
        subtitle=(
            f"A ranker, trained on {manifest.name}: {manifest.counts['events']:,} events of "
            f"{manifest.counts['users']:,} users, {manifest.counts['rows_fit']:,} rows to fit"
            f"{revision(environment)}"
        ),
        headline=material.headline(),
        tiles=material.tiles(),
        sections=list(_sections(material, lie, environment)),
        closing=closing_table(config.name, {"trained": trained} | material.numbers(), lie),
    )


def _sections(
    material: Material, lie: dict[str, str], environment: dict[str, Any]
) -> Iterator[Section]:
    yield task_sections.measured(material)
    yield from task_sections.beside(material)
    yield from task_sections.comparison(material)
    yield task_sections.training(material)
    yield from task_sections.predictions(material)
    yield task_sections.data(material, {})
    yield Section("Where everything lies", facts=lie)
    config = material.config
    facts = {
        "model": _made_of(config),
        "recent events": str(config.loader.max_events),
        "gap": f"{config.loader.gap_hours:g} hours",
        "batch": f"{config.loader.batch_requests} requests",
        "published user embeddings": str(len(config.loader.user_embeddings.stores) or "none"),
        "calibration": config.model.calibration,
    }
    yield setting(config, environment, facts)


def _made_of(config: RankerRunConfig) -> str:
    net = config.model.net
    return f"{net.interaction.kind}, {net.experts.kind}, width {net.dimension}"


def _places(material: Material) -> dict[str, str]:
    others: dict[str, Path | str] = {"prepared data set": material.dataset.path}
    if material.against is not None:
        others["compared with"] = material.against
    if (material.folder / ARTIFACT).is_dir():
        others["artifact"] = material.folder / ARTIFACT
    return places(material.folder, others)
