"""`recsys trust`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING

from recsys.artifacts.open import trust_artifact
from recsys.core.bounds import Settings
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.core.location import shown
from recsys.core.mirror import local_folder


@dataclass(frozen=True)
class TrustConfig(Settings):
    """What to trust.

    Attributes:
        artifact: the artifact folder.
    """

    artifact: str = MISSING


def configure(overrides: Sequence[str]) -> TrustConfig:
    """Compose conf/trust.yaml."""
    return compose("trust", TrustConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Check the artifact, add it to the list, and say where that is."""
    config = configure(overrides)
    listed = trust_artifact(local_folder(config.artifact))
    message_console().print(f"{shown(config.artifact)} is now in {listed}.")
