"""The page of a run that predicts tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.artifacts.manifest import ARTIFACT
from recsys.core.environment import read_environment
from recsys.reports import task_sections
from recsys.reports.page import Page, Section, closing_table, places, revision, setting
from recsys.reports.task_material import TaskMaterial


def task_page(
    material: TaskMaterial[Any],
    called: str,
    trained: str,
    facts: Mapping[str, str],
    own: Sequence[Section] = (),
) -> Page:
    """The page and the table a run ends with.

    Args:
        material: what is shown.
        called: the model, as a sentence begins: ``A ranker``.
        trained: the model and what it is made of.
        facts: the most telling settings.
        own: sections of the system's own, behind the metrics.
    """
    config, manifest = material.config, material.trained_on
    environment, lie = read_environment(material.folder), _places(material)
    last = [
        Section("Where everything lies", facts=lie),
        setting(config, environment, dict(facts)),
    ]
    return Page(
        folder=material.folder,
        title=config.name,
        subtitle=(
            f"{called}, trained on {manifest.name}: {manifest.counts['events']:,} events of "
            f"{manifest.counts['users']:,} users, {manifest.counts['rows_fit']:,} rows to fit"
            f"{revision(environment)}"
        ),
        headline=material.headline(),
        tiles=material.tiles(),
        sections=[*_measured(material, own), *last],
        closing=closing_table(
            config.name,
            {"trained": f"{trained} on {config.data.title}"} | material.numbers(),
            lie,
        ),
    )


def _measured(material: TaskMaterial[Any], own: Sequence[Section]) -> Iterator[Section]:
    yield task_sections.measured(material)
    yield from own
    yield from task_sections.beside(material)
    yield from task_sections.comparison(material)
    yield task_sections.training(material)
    yield from task_sections.predictions(material)
    yield task_sections.data(material, {})


def _places(material: TaskMaterial[Any]) -> dict[str, str]:
    others: dict[str, Path | str] = {"prepared data set": material.dataset.path}
    if material.against is not None:
        others["compared with"] = material.against
    if (material.folder / ARTIFACT).is_dir():
        others["artifact"] = material.folder / ARTIFACT
    return places(material.folder, others)
