"""Processes that listen at one address, and are replaced where one dies."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import connection, parent_process
from pathlib import Path

from fastapi import FastAPI
from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from recsys.core.errors import ConfigError
from recsys.core.threads import share_threads
from recsys.service.app import api_key, make_app
from recsys.service.config import METRICS_FOLDER, ServeConfig
from recsys.service.generations import ServiceState
from recsys.service.release import swap

#: Connections that wait to be accepted.
_BACKLOG = 2048
#: Seconds that requests have to end in when the service is told to.
_GRACE = 5
#: Seconds in which a worker must give a sign of life, else it is replaced. One that is loading on a
#: machine with much else to do gives none for long, and would be replaced again and again.
_SILENT = 30
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
    for address in (config.events, config.feed):
        if address is not None:
            # redis-py, for those who have one
            from recsys.core.redis_client import connect

            connect(address).close()
    current = swap(config)
    ServiceState(Path(config.state)).read(current).known_point(config.load.point)
    with _listening(config) as listening, tempfile.TemporaryDirectory("recsys-metrics") as folder:
        os.environ[METRICS_FOLDER] = folder
        share_threads(config.workers)
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
            timeout_worker_healthcheck=_SILENT,
        )
        tell(f"http://{f'[{host}]' if ':' in host else host}:{port} serves generation {current}")
        Multiprocess(uvicorn, [listening]).run()


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
