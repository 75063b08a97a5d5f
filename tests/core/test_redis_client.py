"""What is wrong with a Redis is said in a sentence, and its password nowhere."""

from __future__ import annotations

import json
import re
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from recsys.cli.main import USER_ERROR, invoke
from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.core.secrets import mask
from recsys.embeddings.stores import open_store
from recsys.runs.files import PUBLICATION_FILE
from recsys.systems.base import ExportConfig
from recsys.systems.dv365.export import export_run
from recsys.systems.dv365.report import Exported, places_of
from tests.embeddings.stores import redis_server
from tests.systems.dv365.runs import events, prepared_dataset, untrained_run
from tests.systems.dv365.towers import NOW

PASSWORD = "GEH#eim"
ENCODED = "GEH%23eim"
#: May do what publishing, reading and deleting need, as docs/export.md has it.
PERMISSIONS = "~recsys:* +@connection +@read +@write +@scripting +@transaction -@dangerous +info"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host and port of a server with a password, and users with few permissions."""
    folder = tmp_path_factory.mktemp("redis")
    with redis_server(folder, "--requirepass", PASSWORD) as url:
        place = url.removeprefix("redis://")
        with redis.Redis.from_url(f"redis://:{ENCODED}@{place}") as administrator:
            for user, permissions in {
                "writer": PERMISSIONS,
                "reader": "~recsys:* +ping +select +get",
            }.items():
                words = ("on", f">{PASSWORD}", *permissions.split())
                administrator.execute_command("ACL", "SETUSER", user, *words)
        yield place.removesuffix("/0")


def refusal(address: str) -> RecsysError:
    """Why a store cannot be opened; neither the sentence nor its traceback shows the password."""
    with pytest.raises((ArtifactError, ConfigError)) as caught:
        open_store(address)
    assert "GEH" not in str(caught.value)
    causes = [caught.value, caught.value.__cause__]
    if not caught.value.__suppress_context__:
        causes.append(caught.value.__context__)
    for cause in filter(None, causes):
        assert "GEH" not in "".join(traceback.format_exception_only(cause))
    return caught.value


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("redis://:GEHfalsch@{}/0", "does not take the user or password"),
        ("redis://nobody:GEHeim@{}/0", "does not take the user or password"),
        ("redis://{}/0", "wants a password, and the address has none"),
        (f"redis://:{ENCODED}@{{}}/99", "database 99 has no such database"),
        (f"redis://:{ENCODED}@{{}}/mine", "behind the host stands the database"),
        (f"redis://:{ENCODED}@{{}}/1/2", "behind the host stands the database"),
        (f"redis://:{ENCODED}@{{}}/0?db=mine", "with a value that cannot"),
        (f"redis://:{ENCODED}@{{}}/0?colour=GEHeim", "an option behind the ?"),
        ("redis://:GEH#eim@{}/0", "percent-encoded"),
        ("redis://:GEH/eim@{}/0", "percent-encoded"),
        ("redis://:123/GEHeim@{}/0", "percent-encoded"),
        ("redis://:123#GEHeim@{}/0", "percent-encoded"),
        ("redis://:GEHeim@127.0.0.1:99999/0", "a port is a number up to 65535"),
        ("redis://:GEHeim@127.0.0.1:1/0", "No Redis server answers at 127.0.0.1:1"),
        ("unix:///nowhere/redis.sock?password=GEHeim", "No Redis server answers at /nowhere"),
        ("redis:/:GEHeim@{}", "it begins with redis://"),
        ("https://user:GEHeim@{}/0", "embeddings are kept in Redis"),
    ],
)
def test_what_is_wrong_with_an_address_is_a_sentence(
    server: str, address: str, sentence: str
) -> None:
    said = str(refusal(address.format(server)))
    assert re.search(sentence.replace("?", r"\?"), said)
    assert mask(said) == said  # the console finds no secret in it, and prints it whole


@given(st.text().map(lambda text: f"GEH{text}EIM"))
def test_no_password_whatever_is_shown(password: str) -> None:
    refusal(f"redis://:{password}@127.0.0.1:1/x")


def test_a_password_for_a_server_without_one_is_a_sentence(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        place = url.removeprefix("redis://")
        assert "has no password, and the address gives one" in str(
            refusal(f"redis://:GEHeim@{place}?protocol=2")
        )


def test_a_user_without_permission_is_told_which(server: str) -> None:
    with open_store(f"redis://writer:{ENCODED}@{server}/1") as store:
        store.begin(0, {})
        store.commit()
        store.prune()
        assert store.size_bytes() and list(store.users()) == []
        store.delete(1)
    with open_store(f"redis://reader:{ENCODED}@{server}/1") as store:
        assert store.current() is not None
        for refused in (lambda: store.get(1), lambda: store.begin(0, {}), store.size_bytes):
            with pytest.raises(
                ArtifactError, match=r"does not permit its user .*(evalsha|incrby|info)"
            ):
                refused()


def test_a_server_that_goes_away_is_a_sentence(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        store = open_store(url)
        store.begin(0, {})
    for lost in (store.current, lambda: store.begin(0, {}), lambda: store.get(1), store.commit):
        with pytest.raises(ArtifactError, match="No Redis server answers"):
            lost()


def test_tls_that_fails_is_a_sentence(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"]
    making += ["/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    making += ["-keyout", str(key), "-out", str(certificate)]
    if subprocess.run(making, capture_output=True).returncode != 0:
        pytest.skip("openssl makes no certificate here")
    tls = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    tls += ("--tls-auth-clients", "no", "--tls-port")
    with redis_server(tmp_path, *tls, "0") as url:
        port = int(url.rpartition(":")[2].removesuffix("/0"))
        setting = redis.Redis(port=port)
        for tls_port in range(port + 1, port + 20):
            try:
                if setting.config_set("tls-port", tls_port):
                    break
            except redis.ResponseError as error:
                if "TLS" in str(error) or "Unknown" in str(error):
                    pytest.skip(f"this redis-server has no TLS ({error})")
        address = f"127.0.0.1:{tls_port}/0"
        assert "answers by TLS" in str(refusal(f"rediss://:GEHeim@{address}"))
        assert "given as rediss://" in str(refusal(f"redis://:GEHeim@{address}"))
        missing = f"rediss://{address}?ssl_ca_certs={tmp_path}/nothing.pem"
        assert "answers by TLS" in str(refusal(missing))
        open_store(f"rediss://{address}?ssl_ca_certs={certificate}").close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an artifact, its data set beside it."""
    folder = tmp_path_factory.mktemp("published")
    dataset = prepared_dataset(folder / "data", events(500, NOW - 10 * 86_400_000, NOW, seed=1))
    run = untrained_run(folder / "run", dataset)
    export_run(run, ExportConfig(measure=False))
    return folder / "run"


def test_publishing_and_deleting_show_and_write_no_password(
    server: str, run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["publish", f"run_dir={run}", f"dataset={run.parent / 'data'}", f"as_of={NOW}"]
    command += ["batch_users=1"]
    good, bad = f"redis://:{ENCODED}@{server}/0", f"redis://:GEHfalsch@{server}/0"
    assert invoke([*command, f"store={good}"]) == 0
    monkeypatch.setenv("REDIS_PASSWORD", ENCODED)
    assert invoke([*command, f"store=redis://:${{oc.env:REDIS_PASSWORD}}@{server}/0"]) == 0
    assert invoke(["data", "delete", "user=1001", f"store={good}"]) == 0
    assert invoke(["data", "delete", "user=1001", f"store={bad}"]) == USER_ERROR
    for debugging in ("0", "1"):
        monkeypatch.setenv("RECSYS_DEBUG", debugging)
        for wrong in (bad, good.replace("/0", "/mine"), f"redis://:GEH{{eim@{server}/0"):
            assert invoke([*command, f"store={wrong}"]) == USER_ERROR
    printed = capfd.readouterr()
    assert f"redis://***@{server}/0" in printed.out
    assert "does not take the user or password" in printed.err
    assert "GEH" not in printed.out + printed.err
    assert json.loads((run / PUBLICATION_FILE).read_text())["store"] == f"redis://***@{server}/0"
    for path in run.rglob("*"):
        assert not path.is_file() or b"GEH" not in path.read_bytes(), path


def test_a_report_of_a_publication_that_was_written_with_its_password_shows_none() -> None:
    class Material:
        class dataset:  # noqa: N801
            path = Path("data")

        against = None
        folder = Path("run")

    publication = {"store": "redis://:GEHeim@host:1/0"}
    lines = places_of(Material, Exported({}, publication))  # type: ignore[arg-type]
    assert lines["embedding store"] == "redis://***@host:1/0"
