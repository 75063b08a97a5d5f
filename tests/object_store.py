"""An S3-compatible server of the tests' own: moto's, as a process of its own."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys.core import location
from recsys.core.location import RemotePath

#: Of nobody; no test may show them.
KEY, SECRET = "AKIAOFTHETESTS", "secret-of-the-tests"
#: What a client may take credentials or an address from.
_VARIABLES = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION")


#: A bucket per test.
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class ObjectStore:
    """A bucket of a running server.

    Attributes:
        endpoint: of the server.
        bucket: a URL, of a bucket that is empty when the test begins.
    """

    endpoint: str
    bucket: str

    def put(self, files: Path, url: str) -> None:
        """Copy a file, or a folder file by file, as the store's own tools do."""
        paths = [files] if files.is_file() else [p for p in files.rglob("*") if p.is_file()]
        for path in paths:
            name = "" if path == files else f"/{path.relative_to(files).as_posix()}"
            with RemotePath(url + name).open("wb") as file:
                file.write(path.read_bytes())

    def keys(self, url: str) -> list[str]:
        """What lies below a URL, by name."""
        place = RemotePath(url)
        return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


@pytest.fixture(scope="session")
def _endpoint() -> Iterator[str]:
    pytest.importorskip("moto.server", reason="moto is not installed: requirements/dev.txt has it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.poll() is None:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert server.poll() is None, "moto's server has ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def object_store(
    _endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ObjectStore]:
    """A bucket, with the settings by which a client finds it; the cache is the test's own."""
    from pyarrow.fs import S3FileSystem

    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("RECSYS_CACHE_DIR", str(tmp_path / "cache"))
    location._filesystem.cache_clear()
    name = f"bucket-{next(_NUMBERS)}"
    S3FileSystem(endpoint_override=_endpoint, allow_bucket_creation=True).create_dir(name)
    yield ObjectStore(_endpoint, f"s3://{name}")
    location._filesystem.cache_clear()


class Refusing(BaseHTTPRequestHandler):
    """A store that ends a body half-way, or refuses because of the time."""

    def do_HEAD(self) -> None:
        self.send_response(403 if "secret" in self.path else 200)
        self.send_header("Content-Length", "5000")
        self.send_header("ETag", '"1"')
        self.end_headers()

    def do_GET(self) -> None:
        if "list-type" in self.path or "cut" not in self.path:
            body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>late</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(206)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b"user_id,item_id\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that answers by the name of what is asked for: ``cut``, ``late``, ``secret``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    location._filesystem.cache_clear()
    yield
    location._filesystem.cache_clear()
    server.shutdown()
    server.server_close()
