"""Passwords and tokens do not come through, whatever they are made of and wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st

from recsys.core.environment import describe_environment
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir
from recsys.core.secrets import MASK, is_secret, mask, mask_address, mask_settings, mask_words

#: Beginning and end of every password here: no part of one may be left.
PARTS = ("GEH", "EIM")
PASSWORDS = st.text().map(lambda text: f"GEH{text}EIM")
ON_ONE_LINE = st.text(st.characters(exclude_characters="\n")).map(lambda text: f"GEH{text}EIM")
HOSTS = st.sampled_from(["host", "host:6379", "[::1]:6379", "127.0.0.1:1/0", "", "/run/redis.sock"])
SCHEMES = st.sampled_from(["redis", "rediss", "unix", "https", "REDIS", "postgresql+x"])
USERS = st.sampled_from(["", "user", "GEHtoken"])


def without_secrets(text: str) -> bool:
    return not any(part in text for part in PARTS)


@given(SCHEMES, USERS, PASSWORDS, HOSTS, st.booleans())
@example("redis", "", "GEH@:/?#&=EIM", "host", False)
@example("redis", "", "GEH?password=@EIM", "host", False)
def test_an_address_does_not_show_its_password(
    scheme: str, user: str, password: str, host: str, encoded: bool
) -> None:
    password = quote(password, safe="") if encoded else password
    address = f"{scheme}://{user}:{password}@{host}"
    masked = mask_address(address)
    assert without_secrets(masked)
    assert masked.startswith(f"{scheme}://")
    assert mask_address(masked) == masked


@given(SCHEMES, USERS, ON_ONE_LINE, HOSTS, st.text(max_size=5), st.text(max_size=5))
def test_nor_does_a_text_with_an_address_in_it(
    scheme: str, user: str, password: str, host: str, before: str, after: str
) -> None:
    text = f"{before} {scheme}://{user}:{password}@{host} {after}"
    assert without_secrets(mask(text))
    assert without_secrets(str(ConfigError(text)))


@pytest.mark.parametrize("name", ["password", "pass_token", "sslPassword", "api_key", "pasword"])
@given(host=HOSTS, password=PASSWORDS)
def test_nor_does_the_query_of_redis(name: str, host: str, password: str) -> None:
    assert without_secrets(mask_address(f"redis://{host}?db=1&{name}={password}"))
    assert without_secrets(mask(f"(unix://{host}?{name}={quote(password)})"))


@pytest.mark.parametrize(
    "address",
    [
        "redis://host:6379/0",
        "redis://[::1]:6379/0",
        "unix:///run/redis.sock?db=1",
        "https://example.org/a?page=2#part",
        "redis://:${oc.env:REDIS_PASSWORD}@host/0",
        "redis://user:${oc.env:REDIS_PASSWORD}@host/0",
        "folder/with:colon",
        "mine@work",
    ],
)
def test_an_address_without_a_secret_stays_as_it_is(address: str) -> None:
    assert mask_address(address) == address
    assert mask(f"see {address} for more") == f"see {address} for more"


def test_sentences_with_addresses_stay_as_they_are() -> None:
    for sentence in (
        "see https://example.org: write to a@example.org",
        "neither redis://[::1]:6379/0 nor redis://host:6379 has a@b",
    ):
        assert mask(sentence) == sentence


def test_a_host_that_was_forgotten_leaves_the_password_where_the_port_should_be() -> None:
    assert mask_address("redis://:GEHEIM") == f"redis://{MASK}"
    assert mask("at redis://user:GEHEIM/0 nobody") == f"at redis://{MASK} nobody"


@pytest.mark.parametrize("name", ["password", "db.password", "auth-token", "WANDB_API_KEY", "key"])
@given(secret=PASSWORDS)
def test_a_command_line_is_kept_without_its_secrets(name: str, secret: str) -> None:
    words = ["publish", f"{name}={secret}", f"--{name}", secret, f"store=redis://:{secret}@host"]
    masked = mask_words(words)
    assert without_secrets("\n".join(masked))
    assert masked[0] == "publish" and masked[1] == f"{name}={MASK}"
    assert len(masked) == len(words)


def test_settings_are_uploaded_without_their_secrets() -> None:
    given_settings = {"a": {"api_key": "GEHEIM", "token": None, "lists": [("redis://:GEHEIM@h",)]}}
    assert mask_settings(given_settings) == {
        "a": {"api_key": MASK, "token": None, "lists": [[f"redis://{MASK}@h"]]}
    }


def test_sentences_about_settings_stay_as_they_are() -> None:
    for sentence in (
        "`nothing` is not of the form `key=value`.",
        "the column token: 3 values are missing",
        "columns.user_id=user_key",
    ):
        assert mask(sentence) == sentence
    assert mask("unknown key `wandb_token` (given as `wandb_token=GEHEIM`)") == (
        f"unknown key `wandb_token` (given as `wandb_token={MASK}`)"
    )


def test_no_setting_of_ours_is_taken_for_a_secret() -> None:
    """Or the command of a run would be kept without it."""
    names = {
        name
        for path in conf_dir().rglob("*.yaml")
        for name in keys(yaml.safe_load(Path(path).read_text()))
    }
    assert len(names) > 100
    assert not list(filter(is_secret, names))


def keys(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield str(name)
            yield from keys(value)
    if isinstance(content, list):
        for value in content:
            yield from keys(value)


def test_the_environment_of_a_run_has_the_masked_command(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/bin/recsys", "train", "seed=1", "x.password=GEHEIM", "posts.path=https://GEH@host"]
    monkeypatch.setattr("sys.argv", words)
    assert describe_environment()["command"] == [
        *("recsys", "train", "seed=1", f"x.password={MASK}", f"posts.path=https://{MASK}@host")
    ]
