"""What `recsys serve` is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import (
    Count,
    ItemsPerUser,
    Jobs,
    Number,
    OneOf,
    Settings,
    Share,
    StoreAddress,
)
from recsys.serving.funnel.config import FunnelConfig
from recsys.serving.funnel.live_knowledge import KnowledgeConfig

#: What time it is for who does not say: the machine's, or just after the newest known event.
MACHINE, LOG = "machine", "log"
#: Environment variable with the folder in which processes share what they count of themselves.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_Milliseconds = Annotated[float, Number(above=0)]
_Port = Annotated[int, Number(at_least=0, at_most=65_535)]


@dataclass(frozen=True)
class LimitsConfig(Settings):
    """What a request may ask for, and what a worker takes on.

    Attributes:
        items: of a list.
        body_bytes: of a request's body.
        events: of one report.
        waiting: requests that wait for the funnel of a worker; others get lists made before.
        fallbacks: that wait in a worker; whoever comes then is told to come again.
        wait_ms: after which a request gets a list made before.
        retry_after: seconds after which to come again.
    """

    items: ItemsPerUser = 1_000
    body_bytes: Count = 4 * 2**20
    events: Count = 10_000
    waiting: Count = 32
    fallbacks: Count = 64
    wait_ms: _Milliseconds = 1_000.0
    retry_after: Count = 1


@dataclass(frozen=True)
class LoadConfig(Settings):
    """An operating point for when too many ask; each worker takes it up by its own queue.

    Attributes:
        point: its name; None for none.
        above: share of ``limits.waiting`` that waits when it is taken up.
        seconds: that fewer must have waited before it is left again.
    """

    point: str | None = None
    above: Share = 0.5
    seconds: Annotated[float, Number(at_least=0)] = 10.0


@dataclass(frozen=True)
class GenerationConfig(Settings):
    """What is served.

    Attributes:
        funnel: None for that of the generation that is served.
        points: file of operating points; None likewise.
        dataset: the prepared data set; None likewise.
        state: folder of the events, generations and ledgers of the service.
    """

    funnel: FunnelConfig | None = None
    points: str | None = None
    dataset: str | None = None
    state: str = MISSING


@dataclass(frozen=True)
class ServeConfig(GenerationConfig):
    """The service.

    Attributes:
        host: that is listened at.
        port: of it; 0 for a free one.
        workers: processes.
        clock: ``machine``, or ``log``, for logs of the past: just after the newest known event.
        inspector: whether a request may change the funnel for itself.
        api_key_env: environment variable with the key that requests must have; None for none.
        events: Redis in which what is reported is kept, by the data set; None for the state.
        feed: Redis in which the cache of a funnel is kept; None for a folder of the state.
        known: what is counted.
        limits: of requests.
        load: what is otherwise when too many ask.
        ledger_seconds: after which a file of the ledger is ended.
    """

    host: str = "127.0.0.1"
    port: _Port = 8080
    workers: Jobs = 2
    clock: Annotated[str, OneOf((MACHINE, LOG))] = MACHINE
    inspector: bool = False
    api_key_env: str | None = None
    events: Annotated[str, StoreAddress()] | None = None
    feed: Annotated[str, StoreAddress()] | None = None
    known: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    ledger_seconds: Annotated[float, Number(above=0)] = 10.0
