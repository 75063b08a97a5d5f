"""What a recurring training does in a cycle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import BatchSize, Days, Jobs, Number, OneOf, OutPath, PagePath, Settings

#: Begin with new weights, or with those of the generation that is served.
ANEW, CONTINUE = "anew", "continue"


@dataclass(frozen=True)
class GateConfig(Settings):
    """When a new generation is not served.

    Attributes:
        worse_percent: its mean NE on the newest day is surely worse than that of the generation
            that is served, by more than so many percent (by the better end of the interval); null:
            it is served however bad it is.
        least_cosine: mean cosine between its user embeddings and those that are served, at least;
            null: they may move. Models that are trained anew turn their space, so that this is of
            use with ``rhythm=continue``.
        sampled_users: users whose embeddings are compared.
        consumers: runs of `system=ranker` that read what is published.
        skew_percent: the mean NE of a consumer on its newest day is surely worse, by more than so
            many percent, when it is given the new embeddings in the place of those that are
            served; null: consumers are not asked.
    """

    worse_percent: Annotated[float, Number(at_least=0)] | None = 1.0
    least_cosine: Annotated[float, Number(at_least=-1, at_most=1)] | None = None
    sampled_users: Annotated[int, Number(at_least=1)] = 2_000
    consumers: list[str] = field(default_factory=list)
    skew_percent: Annotated[float, Number(at_least=0)] | None = 1.0


@dataclass(frozen=True)
class RecurConfig(Settings):
    """A recurring training.

    Attributes:
        folder: where generations lie, each with its run, artifact and published embeddings.
        train: settings of `recsys train`: data, system, experiment and so on.
        path: file or folder with new days, alone or with those that are there; null: the data set
            has grown already, or is not there yet.
        rhythm: ``anew``, or ``continue`` from the weights that are served.
        train_every: so many cycles that bring days after the one whose generation is served, the
            next one is trained; those between publish the embeddings that changed by their days.
        gate: when a new generation is not served.
        keep: generations that were served and are kept for rolling back, with the current one,
            and as many of those that were not.
        retention_days: users without an event in the last so many days have no embedding.
        batch_users: users per call of the tower that is published.
        processes: that compute the embeddings.
    """

    folder: OutPath = MISSING
    train: list[str] = field(default_factory=list)
    path: str | None = None
    rhythm: Annotated[str, OneOf((ANEW, CONTINUE))] = ANEW
    train_every: Annotated[int, Number(at_least=1)] = 1
    gate: GateConfig = field(default_factory=GateConfig)
    keep: Annotated[int, Number(at_least=2, at_most=1_000)] = 3
    retention_days: Days = 365.0
    batch_users: BatchSize = 64
    processes: Jobs = 1


@dataclass(frozen=True)
class StatusConfig(Settings):
    """Which recurring training is looked at.

    Attributes:
        folder: of the generations.
        out: a page (.html) to write.
    """

    folder: str = MISSING
    out: PagePath | None = None


@dataclass(frozen=True)
class RollbackConfig(Settings):
    """Which recurring training is rolled back.

    Attributes:
        folder: of the generations.
    """

    folder: str = MISSING
