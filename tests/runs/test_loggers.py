"""TensorBoard and Prometheus beside metrics.csv, read by their own libraries."""

from __future__ import annotations

import http.server
import importlib.util
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.composition import compose
from recsys.core.errors import ConfigError
from recsys.runs.config import LoggerConfig
from recsys.runs.loggers import loggers_of
from recsys.runs.metrics_log import read_metrics
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.runs import train


def test_choices_of_conf_switch_them_on() -> None:
    for name in ("tensorboard", "prometheus"):
        logger = compose("train", DV365RunConfig, ["experiment=demo", f"logger={name}"]).logger
        assert getattr(logger, name)
    with pytest.raises(ConfigError, match=r"logger\.prometheus_port is for logger=prometheus"):
        LoggerConfig(prometheus_port=9000)


@pytest.mark.parametrize(
    ("logger", "module"), [("tensorboard", "tensorboard"), ("prometheus", "prometheus_client")]
)
def test_an_extra_that_is_missing_is_a_sentence(
    logger: str, module: str, run_config: DV365RunConfig, tmp_path: Path
) -> None:
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    config = replace(run_config, logger=LoggerConfig(**{logger: True}))
    with pytest.raises(ConfigError, match=f"recsys.install --extra {logger}"):
        loggers_of(config, tmp_path)


def test_tensorboard_reads_the_losses_of_metrics_csv(run_config: DV365RunConfig) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_dir = train(replace(run_config, logger=LoggerConfig(tensorboard=True)))
    events = accumulator.EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    ours = read_metrics(run_dir).filter(metric="train/loss").sort("step")["value"].to_list()
    theirs = [event.value for event in events.Scalars("train/loss")]
    assert theirs == pytest.approx(ours)
    assert "val/ne/mean" in events.Tags()["scalars"]


def numbers(text: str) -> dict[str, float]:
    """What Prometheus reads in its text form: metric of ours → value, and the steps as ``step``."""
    parser = pytest.importorskip("prometheus_client.parser")
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.labels.get("metric", "step")] = sample.value
    return found


def test_the_text_file_has_the_newest_numbers(run_config: DV365RunConfig) -> None:
    pytest.importorskip("prometheus_client")
    run_dir = train(replace(run_config, logger=LoggerConfig(prometheus=True)))
    found = numbers((run_dir / "metrics.prom").read_text())
    log = read_metrics(run_dir)
    assert found["step"] == 12
    for metric in ("train/loss", "val/ne/mean"):
        newest = log.filter(metric=metric).sort("step")["value"].to_list()[-1]
        assert found[metric] == pytest.approx(newest)


def test_the_port_answers_while_the_training_runs(tmp_path: Path) -> None:
    prometheus = pytest.importorskip("recsys.runs.prometheus")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    config = LoggerConfig(prometheus=True, prometheus_port=port)
    logger = prometheus.PrometheusLogger(tmp_path, config)
    logger.log_metrics({"val/ne/mean": 0.5}, step=6)
    with pytest.raises(ConfigError, match=f"prometheus_port={port} cannot be listened to"):
        prometheus.PrometheusLogger(tmp_path, config)
    with urllib.request.urlopen(f"http://localhost:{port}/metrics") as answer:
        assert numbers(answer.read().decode()) == {"val/ne/mean": 0.5, "step": 7.0}
    logger.finalize("success")
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://localhost:{port}/metrics")


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that takes what is pushed to it: its address, and what came."""
    pushed: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            length = int(self.headers["Content-Length"])
            pushed.append((self.path, self.rfile.read(length)))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_port}", pushed
    server.shutdown()
    server.server_close()


def test_a_pushgateway_gets_them_and_one_that_is_gone_stops_nothing(
    gateway: tuple[str, list[tuple[str, bytes]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prometheus = pytest.importorskip("recsys.runs.prometheus")
    address, pushed = gateway
    config = LoggerConfig(prometheus=True, prometheus_gateway=address)
    logger = prometheus.PrometheusLogger(tmp_path, config)
    logger.log_metrics({"train/loss": 1.5}, step=0)
    [(path, body)] = pushed
    assert path == f"/metrics/job/recsys/run/{tmp_path.name}"
    assert numbers(body.decode()) == {"train/loss": 1.5, "step": 1.0}

    gone = replace(config, prometheus_gateway="localhost:1")
    logger = prometheus.PrometheusLogger(tmp_path, gone)
    for step in range(2):
        logger.log_metrics({"train/loss": 1.0}, step=step)
    assert capsys.readouterr().err.count("localhost:1 does not take the numbers") == 1


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    prometheus = pytest.importorskip("recsys.runs.prometheus")
    theirs = tmp_path / "node.prom"
    theirs.write_text("# HELP node_load1 1m load average.\n")
    with pytest.raises(ConfigError, match=r"node\.prom"):
        prometheus.PrometheusLogger(
            tmp_path, LoggerConfig(prometheus=True, prometheus_file=str(theirs))
        )
