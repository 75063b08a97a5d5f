"""A training's newest numbers in Prometheus' text form: a file, a port, a Pushgateway."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from prometheus_client import CollectorRegistry, Gauge, start_http_server, write_to_textfile
from prometheus_client.exposition import push_to_gateway

from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.core.folders import check_file
from recsys.runs.config import LoggerConfig
from recsys.runs.files import PROMETHEUS_FILE

JOB = "recsys"
METRIC, STEP = "recsys_metric", "recsys_step"
#: Seconds that a Pushgateway has to answer, so that none holds a training up for long.
_PATIENCE = 2.0


class PrometheusLogger(Logger):
    """Gauges of every number that is logged, by ``run`` and ``metric``, and of the steps done.

    Args:
        run_dir: the run folder; its name is the label ``run``.
        config: where the numbers go.

    Raises:
        ConfigError: the file is somebody else's, or the port is taken.
    """

    def __init__(self, run_dir: Path, config: LoggerConfig) -> None:
        super().__init__()
        self.run = run_dir.name
        self.path = Path(config.prometheus_file or run_dir / PROMETHEUS_FILE)
        self.gateway = config.prometheus_gateway
        self.registry = CollectorRegistry()
        self.metric = Gauge(METRIC, "Newest value", ["run", "metric"], registry=self.registry)
        self.step = Gauge(STEP, "Optimiser steps done", ["run"], registry=self.registry)
        self._server: Any = None
        self._open(config.prometheus_port)

    @rank_zero_only
    def _open(self, port: int | None) -> None:
        check_file(self.path, _is_made_here)
        if port is not None:
            try:
                self._server, _ = start_http_server(port, registry=self.registry)
            except OSError as error:
                raise ConfigError(
                    f"logger.prometheus_port={port} cannot be listened to ({error.strerror}); give "
                    "another port."
                ) from error

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.run

    @property
    def version(self) -> str:
        """A run folder holds one run."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> CollectorRegistry:
        """What is shown."""
        return self.registry

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Show ``metrics``; ``step`` is Lightning's, which counts the steps before this one."""
        self.step.labels(self.run).set((step or 0) + 1)
        for name, value in metrics.items():
            self.metric.labels(self.run, name).set(float(value))
        write_to_textfile(str(self.path), self.registry)
        if self.gateway is not None:
            try:
                push_to_gateway(
                    self.gateway,
                    JOB,
                    self.registry,
                    grouping_key={"run": self.run},
                    timeout=_PATIENCE,
                )
            except OSError as error:
                message_console().print(
                    f"The Pushgateway {self.gateway} does not take the numbers ({error}); the "
                    "training goes on, and they are no longer sent there."
                )
                self.gateway = None

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _is_made_here(path: Path) -> bool:
    return path.read_bytes().startswith(f"# HELP {METRIC}".encode())
