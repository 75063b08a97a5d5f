"""`recsys study`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from recsys.core.composition import compose
from recsys.core.overrides import SEARCH_PATH
from recsys.studies.plan import StudyConfig
from recsys.studies.run import run_study

_STUDY_KEYS = {"study", "view", *(field.name for field in fields(StudyConfig))}


def configure(overrides: Sequence[str]) -> StudyConfig:
    """Compose conf/study.yaml; settings that are none of a study's go to all of its runs.

    Further folders with groups are for both.
    """
    own = [one for one in overrides if _key(one) in _STUDY_KEYS or one.startswith(SEARCH_PATH)]
    of_runs = [override for override in overrides if _key(override) not in _STUDY_KEYS]
    config = compose("study", StudyConfig, own)
    return replace(config, overrides=[*config.overrides, *of_runs])


def run(overrides: Sequence[str]) -> None:
    """Train and evaluate what is not finished, write study.md, study.json and study.png."""
    run_study(configure(overrides))


def _key(override: str) -> str:
    return override.split("=", 1)[0].split(".", 1)[0]
