"""Processes that listen at one address, and are replaced where one dies."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import connection, parent_process
from pathlib import Path

from fastapi import FastAPI
from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from recsys.core.errors import ConfigError
from recsys.data.stores.live.dataset import LiveDataset
from recsys.service.app import api_key, make_app
from recsys.service.config import METRICS_FOLDER, ServeConfig
from recsys.service.generations import Generation, ServiceState
from recsys.service.served import Served
from recsys.serving.funnel.ledger import Ledger

#: Connections that wait to be accepted.
_BACKLOG = 2048
#: Seconds that requests have to end in when the service is told to.
_GRACE = 5
#: So often threads take turns, s: the network waits no longer for a funnel.
_TURN = 0.001


def serve(config: ServeConfig, tell: Callable[[str], None]) -> None:
    """Serve until the process is told to end.

    Args:
        config: of the service.
        tell: is given the address once it is listened at.

    Raises:
        ConfigError: the address is taken, or the key is not in the environment.
        RecsysError: the generation cannot be served; what was served before stays.
    """
    api_key(config)
    current = _begin(config)
    with _listening(config) as listening, tempfile.TemporaryDirectory("recsys-metrics") as folder:
        os.environ[METRICS_FOLDER] = folder
        host, port = listening.getsockname()[:2]
        uvicorn = Config(
            partial(_worker, config),
            factory=True,
            workers=config.workers,
            access_log=False,
            log_level="warning",
            lifespan="on",
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
        )
        tell(f"http://{f'[{host}]' if ':' in host else host}:{port} serves generation {current}")
        Multiprocess(uvicorn, [listening]).run()


def new_generation(config: ServeConfig) -> int:
    """Make a generation of a funnel or a data set, or both, and serve it; returns its number.

    What is not given is that of the generation that is served. One like that makes no other.

    Raises:
        ConfigError: something is not given though nothing is served yet, or the funnel cannot be.
        DataError: the data set cannot be read.
    """
    state = ServiceState(Path(config.state))
    current = None if state.is_new else state.current()
    if current is None and (config.funnel is None or config.dataset is None):
        raise ConfigError(
            f"{config.state} has served nothing yet; give funnel=… and dataset=… as well."
        )
    funnel = config.funnel or (current and current.funnel)
    dataset = Path(config.dataset).resolve() if config.dataset else current and current.dataset
    assert funnel is not None and dataset is not None
    wanted = Generation(funnel, dataset)
    if current is not None and replace(current, number=0) == wanted:
        return current.number
    served = checked(wanted, config)
    added = state.add(wanted)
    Ledger(state.ledger(added.number), served.described).close()
    state.serve(added.number)
    return added.number


def checked(generation: Generation, config: ServeConfig) -> Served:
    """A generation put together, if nothing of it is missing; of its log nothing is counted.

    Raises:
        RecsysError: it cannot be served.
    """
    uncounted = replace(config, known=replace(config.known, log_hours=0.0))
    return Served(generation, uncounted, LiveDataset.open(generation.dataset))


def _begin(config: ServeConfig) -> int:
    state = ServiceState(Path(config.state))
    if config.funnel is None and config.dataset is None and not state.is_new:
        current = state.current()
        checked(current, config)
        return current.number
    return new_generation(config)


def _listening(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"{config.host}:{config.port} cannot be listened at ({error.strerror}); give another "
            "host= or port=."
        ) from error


def _worker(config: ServeConfig) -> FastAPI:
    """The application of a worker, which ends with the process that has started it."""
    sys.setswitchinterval(_TURN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    return make_app(config)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
