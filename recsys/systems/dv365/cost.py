"""`recsys cost`: what embeddings computed ahead save over long histories read at every request.

The formulas are those of DV365's appendix A, and with its inputs (the defaults) come its figures.
In their place stand your own: given, or measured on a data set and on a publication of yours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import (
    Few,
    Length,
    NotNegative,
    Number,
    Positive,
    Settings,
    Share,
    TableSize,
    Width,
)
from recsys.core.errors import ConfigError
from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import TIMELINES
from recsys.data.stores.timelines import TimelineStore
from recsys.runs.load import check_run_folder
from recsys.runs.publication import read_publication

_SECONDS_PER_DAY = 86_400
#: Scale and bias of a 4-bit row, float32 each.
_ROW_TAIL = 8
#: Users whose histories are read at once while reading is measured.
_USERS_PER_READ = 64
_LATEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class HistoryCost(Settings):
    """Users and what is kept of their histories (A.1, A.2.2).

    Attributes:
        users: how many.
        implicit_length: mean number of impressions in a history.
        explicit_length: mean number of actions in it.
        implicit_attributes: numbers kept of an impression.
        explicit_attributes: numbers kept of an action.
        bytes_per_number: of each.
    """

    users: TableSize = 3_000_000_000
    implicit_length: NotNegative = 30_000.0
    explicit_length: NotNegative = 10_000.0
    implicit_attributes: Few = 12
    explicit_attributes: Few = 10
    bytes_per_number: Few = 8

    @property
    def length(self) -> float:
        """Mean number of events of a history."""
        return self.implicit_length + self.explicit_length


@dataclass(frozen=True)
class EmbeddingCost(Settings):
    """The published embedding and serving it (A.2).

    Attributes:
        vectors: of a user.
        width: of a vector, in 4 bits each, with scale and bias behind.
        bytes_per_user: of all vectors; null: from the two above, or of the publication of
            ``run_dir``.
        kilowatts: of serving all requests with embeddings.
    """

    vectors: Width = 58
    width: Annotated[int, Number(at_least=16, at_most=16_384, multiple_of=16)] = 256
    bytes_per_user: TableSize | None = None
    kilowatts: NotNegative = 21.0


@dataclass(frozen=True)
class ReadingCost(Settings):
    """Reading histories at every request (A.2.1).

    Attributes:
        at_length: events of the histories with which it was measured.
        kilowatts: measured with them; null: from the three below.
        requests_per_second: of all consumers together.
        histories_per_second: that one host reads; null with ``dataset``: measured on it.
        watts_per_host: of a host that does nothing else.
    """

    at_length: Positive = 60.0
    kilowatts: NotNegative | None = 150.0
    requests_per_second: Positive | None = None
    histories_per_second: Positive | None = None
    watts_per_host: Positive = 100.0


@dataclass(frozen=True)
class TrainingCost(Settings):
    """Long histories in the training of every consumer (A.3, 4.2).

    Attributes:
        hosts: that slice histories while a consumer trains.
        hours: of a training.
        watts_per_host: of each.
        trainings_per_day: of the consumer.
        gpus: that the added parts of its model take.
        consumers: how many such consumers all of them weigh.
    """

    hosts: Length = 1_000
    hours: NotNegative = 3.0
    watts_per_host: Positive = 100.0
    trainings_per_day: NotNegative = 4.0
    gpus: NotNegative = 338.0
    consumers: Positive = 10.0


@dataclass(frozen=True)
class ServingCost(Settings):
    """Long histories in the serving of consumers (A.4, 4.3).

    Attributes:
        at_length: events of the histories with which it was measured.
        kilowatts: of slicing them, measured.
        left_by_optimisation: share of the power that is left once it is optimised.
        gpus: that the encoder takes of one consumer.
        consumers: how many such consumers all of them weigh.
    """

    at_length: Positive = 60.0
    kilowatts: NotNegative = 900.0
    left_by_optimisation: Share = 0.01
    gpus: NotNegative = 78.0
    consumers: Positive = 10.0


@dataclass(frozen=True)
class PublishingCost(Settings):
    """Computing the embeddings ahead, of which the paper has no figure.

    Attributes:
        users_per_second: that one host publishes; null with ``run_dir``: of its last publication.
        share_per_day: users who are published on a day.
        watts_per_host: of each.
    """

    users_per_second: Positive | None = None
    share_per_day: Share = 1.0
    watts_per_host: Positive = 100.0


@dataclass(frozen=True)
class CostConfig(Settings):
    """Inputs of appendix A.

    Attributes:
        dataset: a prepared data set: lengths of histories are its means, and how fast they are read
            is measured on it.
        run_dir: a run that was published: bytes of a user and users per second are those of its
            last publication.
        measure_seconds: how long reading is measured.
        history: users and their histories.
        embedding: what is published.
        reading: histories at every request.
        training: of consumers.
        serving: of consumers.
        publishing: computing embeddings ahead.
    """

    dataset: str | None = None
    run_dir: str | None = None
    measure_seconds: Positive = 2.0
    history: HistoryCost = field(default_factory=HistoryCost)
    embedding: EmbeddingCost = field(default_factory=EmbeddingCost)
    reading: ReadingCost = field(default_factory=ReadingCost)
    training: TrainingCost = field(default_factory=TrainingCost)
    serving: ServingCost = field(default_factory=ServingCost)
    publishing: PublishingCost = field(default_factory=PublishingCost)

    def __post_init__(self) -> None:
        """Refuse power that nothing says."""
        super().__post_init__()
        if self.reading.kilowatts is not None:
            return
        missing = [
            f"reading.{name}"
            for name in ("requests_per_second", "histories_per_second")
            if getattr(self.reading, name) is None
            and not (name == "histories_per_second" and self.dataset is not None)
        ]
        if missing:
            raise ConfigError(
                f"reading.kilowatts=null is computed from throughput: give {' and '.join(missing)} "
                "(or dataset=…, on which histories_per_second is measured)."
            )


@dataclass(frozen=True)
class CostLine:
    """A figure.

    Attributes:
        name: of what.
        value: in ``unit``.
        unit: ``byte``, ``watt``, ``GPU``, ``host`` or ``times``.
        formula: how it was computed, with its numbers.
        source: where in the paper it stands.
    """

    name: str
    value: float
    unit: str
    formula: str
    source: str


def cost(config: CostConfig) -> list[CostLine]:
    """The figures, of measured inputs where some are to be measured.

    Raises:
        RecsysError: the data set or run cannot be read, or has nothing to measure.
    """
    measured = _of_run(_of_dataset(config))
    return [*_feature_lines(measured), *_consumer_lines(measured), *_publishing_lines(measured)]


def _feature_lines(config: CostConfig) -> Iterator[CostLine]:
    history, embedding, reading = config.history, config.embedding, config.reading
    numbers = (
        history.implicit_length * history.implicit_attributes
        + history.explicit_length * history.explicit_attributes
    )
    stored = history.bytes_per_number * numbers * history.users
    yield CostLine(
        "key-value store of histories",
        stored,
        "byte",
        f"{history.bytes_per_number} B x ({history.implicit_length:,.6g} x "
        f"{history.implicit_attributes} + {history.explicit_length:,.6g} x "
        f"{history.explicit_attributes}) x {history.users:,} users",
        "A.2.2 (1)",
    )
    per_user, how = _embedding_bytes(embedding)
    published = per_user * history.users
    yield CostLine(
        "key-value store of embeddings",
        published,
        "byte",
        f"{how} x {history.users:,} users",
        "A.2.2 (2)",
    )
    yield CostLine("histories / embeddings", stored / published, "times", "of the two above", "4.1")
    measured, how = _reading_kilowatts(reading)
    yield CostLine(
        "reading histories online",
        1e3 * measured * history.length / reading.at_length,
        "watt",
        f"{how} x ({history.length:,.6g} / {reading.at_length:,.6g} events)",
        "A.2.1 (1)",
    )
    yield CostLine(
        "serving embeddings",
        1e3 * embedding.kilowatts,
        "watt",
        f"{embedding.kilowatts:,.6g} kW measured",
        "A.2.1 (2)",
    )


def _embedding_bytes(embedding: EmbeddingCost) -> tuple[int, str]:
    """Bytes of a user, and where they are from."""
    if embedding.bytes_per_user is not None:
        return embedding.bytes_per_user, f"{embedding.bytes_per_user:,} B"
    row = embedding.width // 2 + _ROW_TAIL
    return row * embedding.vectors, f"{row} B x {embedding.vectors} vectors"


def _reading_kilowatts(reading: ReadingCost) -> tuple[float, str]:
    """Power at the length of the measurement, and where it is from."""
    if reading.kilowatts is not None:
        return reading.kilowatts, f"{reading.kilowatts:,.6g} kW"
    assert reading.requests_per_second is not None and reading.histories_per_second is not None
    hosts = reading.requests_per_second / reading.histories_per_second
    return (
        hosts * reading.watts_per_host / 1e3,
        f"({reading.requests_per_second:,.6g} requests/s / {reading.histories_per_second:,.6g} "
        f"histories/s of a host x {reading.watts_per_host:,.6g} W)",
    )


def _consumer_lines(config: CostConfig) -> Iterator[CostLine]:
    training, serving = config.training, config.serving
    watts = (
        training.hosts * training.hours * training.watts_per_host * training.trainings_per_day / 24
    )
    yield CostLine(
        "slicing for a consumer's training",
        watts,
        "watt",
        f"{training.hosts:,} hosts x {training.hours:g} h x {training.watts_per_host:g} W x "
        f"{training.trainings_per_day:g} a day / 24 h",
        "A.3 (1)",
    )
    yield CostLine(
        "slicing for all trainings",
        watts * training.consumers,
        "watt",
        f"the above x {training.consumers:g} consumers",
        "4.2",
    )
    yield CostLine(
        "GPUs of all trainings",
        training.gpus * training.consumers,
        "GPU",
        f"{training.gpus:g} x {training.consumers:g} consumers",
        "A.3 (2), 4.2",
    )
    ratio = config.history.length / serving.at_length
    yield CostLine(
        "slicing at serving",
        1e3 * serving.kilowatts * ratio * serving.left_by_optimisation,
        "watt",
        f"{serving.kilowatts:,.6g} kW x ({config.history.length:,.6g} / {serving.at_length:g} "
        f"events) x {serving.left_by_optimisation:g} left by optimisation",
        "A.4, 4.3",
    )
    yield CostLine(
        "GPUs of serving",
        serving.gpus * serving.consumers,
        "GPU",
        f"{serving.gpus:g} x {serving.consumers:g} consumers",
        "A.4, 4.3",
    )


def _publishing_lines(config: CostConfig) -> Iterator[CostLine]:
    publishing = config.publishing
    if publishing.users_per_second is None:
        return
    users = config.history.users * publishing.share_per_day
    hosts = users / publishing.users_per_second / _SECONDS_PER_DAY
    formula = (
        f"{config.history.users:,} users x {publishing.share_per_day:g} a day / "
        f"{publishing.users_per_second:,.6g} users/s / {_SECONDS_PER_DAY:,} s"
    )
    yield CostLine("hosts that publish", hosts, "host", formula, "not in the paper")
    yield CostLine(
        "publishing",
        hosts * publishing.watts_per_host,
        "watt",
        f"the above x {publishing.watts_per_host:g} W",
        "not in the paper",
    )


def _of_run(config: CostConfig) -> CostConfig:
    """With what the last publication of a run has reported."""
    if config.run_dir is None:
        return config
    folder = Path(config.run_dir)
    check_run_folder(folder)
    reported = read_publication(folder)
    if not reported:
        raise ConfigError(f"{folder} was never published; run recsys publish run_dir={folder}.")
    embedding, publishing = config.embedding, config.publishing
    if embedding.bytes_per_user is None:
        embedding = replace(embedding, bytes_per_user=int(reported["bytes_per_user"]))
    if publishing.users_per_second is None and reported["users_per_second"] > 0:
        publishing = replace(publishing, users_per_second=float(reported["users_per_second"]))
    return replace(config, embedding=embedding, publishing=publishing)


def _of_dataset(config: CostConfig) -> CostConfig:
    """With the mean lengths of a data set's histories, and how fast they are read here."""
    if config.dataset is None:
        return config
    dataset = open_checked(config.dataset)
    timelines = TimelineStore.open(dataset.path / TIMELINES)
    users = timelines.users()
    if not len(users):
        raise ConfigError(f"{config.dataset} has no user with events, so nothing to measure.")
    before = np.full(len(users), _LATEST)
    means = {kind: timelines.lengths(users, before, kind).mean() for kind in TimelineKind}
    history = replace(
        config.history,
        implicit_length=float(means[TimelineKind.IMPLICIT]),
        explicit_length=float(means[TimelineKind.EXPLICIT]),
    )
    reading = config.reading
    if reading.kilowatts is None and reading.histories_per_second is None:
        speed = _histories_per_second(timelines, users, config.measure_seconds)
        reading = replace(reading, histories_per_second=speed, at_length=history.length)
    return replace(config, history=history, reading=reading)


def _histories_per_second(
    timelines: TimelineStore, users: NDArray[np.int32], seconds: float
) -> float:
    """Whole histories of random users that this machine reads in a second, in one process."""
    generator = np.random.default_rng(0)
    start, read = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds or not read:
        some = generator.choice(users, _USERS_PER_READ)
        before = np.full(len(some), _LATEST)
        for kind in TimelineKind:
            for column in timelines.histories(some, before, kind).values():
                column.sum()  # from the mapped file into memory
        read += len(some)
    return read / taken
