"""Secrets kept out of what is printed and written: addresses, settings and command lines.

What cannot be told apart from a secret is masked as well: an address may lose its host, never show
its password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

#: Stands for a secret.
MASK = "***"

_SECRET_NAME = re.compile(
    r"[\w-]*(?:password|passwd|passphrase|secret|credential|signature)[\w-]*|[\w-]*(?:token|key|pwd)",
    re.IGNORECASE,
)
#: ``name=value`` and, as in ``{name:value}`` of Hydra, ``name:value``; only where a name begins.
_PAIR = re.compile(r"(?<![\w-])([\w-]+)([=:])('[^'\n]*'|\"[^\"\n]*\"|[^\s,;&`'\"\])}]+)")
#: In the query of an address.
_QUERY_ITEM = re.compile(r"[?&;]([^=&;\s]*)=")
#: An address in a text: what is before ``://`` and after it. A password may hold spaces, unless
#: what follows the colon is a port.
_ADDRESS = re.compile(
    r"(?<!\w)(\w*)://((?:(?!\[[\da-fA-F:.]+\])[^\n@/:]*:(?!\d+(?:\W|$)|\s)[^\n]*@)?\S*)"
)
#: Names the variable that has the secret, and is none.
_REFERENCE = "${oc.env:"
_REFERRING_USER = re.compile(r"(?:[^\s:@/]*:)?\$\{oc\.env:\w+\}")
#: Of their queries nothing but a database is shown: a mistyped ``pasword=`` is no known name.
_OF_SECRETS = ("redis", "rediss", "unix", "s3", "gs", "hdfs")


def is_secret(name: str) -> bool:
    """Whether a setting or variable of this name holds a secret; of a dotted one the last part.

    >>> [is_secret(name) for name in ("db.password", "WANDB_API_KEY", "max_tokens", "tokenizer")]
    [True, True, False, False]
    """
    return _SECRET_NAME.fullmatch(name.rpartition(".")[2]) is not None


def mask_address(location: str) -> str:
    """The address of a store or server without user, password and secrets of its query.

    A path without ``://`` is returned as it is.

    >>> mask_address("redis://user:p@ss@host:6379/0")
    'redis://***@host:6379/0'
    """
    scheme, separator, rest = location.partition("://")
    return _masked_address(scheme, rest) if separator else location


def mask(text: str) -> str:
    """A text, such as an error's message, without the secrets of addresses and settings in it.

    >>> mask("nobody at redis://:secret@host:1/0 (api_key=12)")
    'nobody at redis://***@host:1/0 (api_key=***)'
    """
    if "://" in text:
        text = _ADDRESS.sub(lambda found: _masked_address(found[1], found[2]), text)
    return _PAIR.sub(_mask_pair_of_text, text)


def mask_words(words: Sequence[str]) -> list[str]:
    """The words of a command line without secrets.

    >>> mask_words(["train", "key=1", "--token", "2", "store=redis://:3@host", "o={secret:4}"])
    ['train', 'key=***', '--token', '***', 'store=redis://***@host', 'o={secret:***}']
    """
    masked = []
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        if option:
            masked.append(MASK)
        elif equals and is_secret(name) and not value.startswith(_REFERENCE):
            masked.append(f"{name}={MASK}")
        elif equals and "://" in value:
            masked.append(f"{name}={mask_address(value)}")
        else:
            masked.append(_PAIR.sub(_mask_pair, mask(word)))
        option = word if word.startswith("-") and not equals and not option else ""
        option = option if is_secret(option) else ""
    return masked


def mask_settings(settings: Any) -> Any:
    """Nested settings, as of ``asdict``, without the secrets in them.

    >>> mask_settings({"user": "a", "password": "b", "places": ["redis://:b@host"]})
    {'user': 'a', 'password': '***', 'places': ['redis://***@host']}
    """
    if isinstance(settings, Mapping):
        return {
            name: MASK if value and is_secret(str(name)) else mask_settings(value)
            for name, value in settings.items()
        }
    if isinstance(settings, (list, tuple)):
        return [mask_settings(value) for value in settings]
    return mask(settings) if isinstance(settings, str) else settings


def _mask_pair(found: re.Match[str]) -> str:
    name, sign, value = found.groups()
    secret = is_secret(name) and not value.startswith(_REFERENCE)
    return f"{name}{sign}{MASK}" if secret else found[0]


def _mask_pair_of_text(found: re.Match[str]) -> str:
    """Sentences say ``key=value`` of any setting, and have columns before a colon."""
    return found[0] if found[1].lower() == "key" or found[2] == ":" else _mask_pair(found)


def _masked_address(scheme: str, rest: str) -> str:
    query = next(filter(partial(_is_secret_item, scheme), _QUERY_ITEM.finditer(rest)), None)
    if query is not None and "@" in rest[query.start() :]:  # of a password, but of which?
        return f"{scheme}://{MASK}"
    if query is not None:
        rest = rest[: query.end()] + MASK
    user, at, place = rest.rpartition("@")
    if at and not _REFERRING_USER.fullmatch(user):
        user = MASK
    if not at and _is_password(place):
        place = MASK
    return f"{scheme}://{user}{at}{place}"


def _is_secret_item(scheme: str, item: re.Match[str]) -> bool:
    return is_secret(item[1]) or (scheme.lower() in _OF_SECRETS and item[1] != "db")


def _is_password(place: str) -> bool:
    """Whether what should be ``host:port/path`` is ``:password``, the host forgotten."""
    _, colon, port = re.split(r"[/?#]", place, maxsplit=1)[0].rpartition(":")
    return bool(colon and port) and "]" not in port and not re.fullmatch(r"\d+\W*", port)
