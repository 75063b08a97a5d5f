"""A client of Redis that says what is wrong in sentences, none of which has the password in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import redis
from redis import exceptions

from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.core.secrets import mask_address

_ENCODED = (
    "special characters of a user name or password are written percent-encoded, such as @ as %40, "
    "/ as %2F, # as %23 and ? as %3F"
)
_EXAMPLE = "redis://:${oc.env:REDIS_PASSWORD}@host:port/database"


class Client(redis.Redis):
    """Redis whose errors are sentences; a script that the server lost is sent again by redis-py."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Run one command.

        Raises:
            ArtifactError: the server does not answer, or refuses.
        """
        with self.telling():
            return super().execute_command(*arguments, **options)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Errors of Redis inside are sentences; for pipelines, which run no command by itself.

        Raises:
            ArtifactError: the server does not answer, or refuses.
        """
        try:
            yield
        except exceptions.NoScriptError:
            raise
        except redis.RedisError as error:
            raise ArtifactError(self._sentence(error)) from None  # it may repeat the login

    @property
    def address(self) -> str:
        """Where the server is, as it may be shown."""
        given = self.get_connection_kwargs()
        place = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
        return f"{place}, database {given.get('db', 0)}"

    def _sentence(self, error: redis.RedisError) -> str:
        where, reason = f"Redis at {self.address}", str(error).rstrip(".")
        if isinstance(error, exceptions.AuthenticationError):
            return f"{where} {self._refused_user(reason)}"
        if isinstance(error, exceptions.NoPermissionError):
            return (
                f"{where} does not permit its user what is needed ({reason}); docs/export.md has "
                "the permissions to give by ACL SETUSER."
            )
        if isinstance(error, exceptions.OutOfMemoryError) or "OOM" in reason:
            return (
                f"{where} has no memory left ({reason}); raise its maxmemory, or give it more "
                "memory, and run the command again."
            )
        if isinstance(error, exceptions.BusyLoadingError):
            return f"{where} is still reading its data; try again when it has."
        if isinstance(error, exceptions.ReadOnlyError):
            return f"{where} is a replica, which takes no changes; give the address of its primary."
        if isinstance(error, (exceptions.ClusterError, exceptions.AskError)):
            return f"{where} belongs to a cluster ({reason}); give the address of a single server."
        unanswered = isinstance(error, (redis.ConnectionError, redis.TimeoutError))
        if unanswered and issubclass(self.connection_pool.connection_class, redis.SSLConnection):
            return (
                f"No Redis server answers by TLS at {self.address} ({reason}): rediss:// needs one "
                "that speaks TLS on this port and whose certificate is trusted here, if need be "
                "by ?ssl_ca_certs=<file>."
            )
        if unanswered and ("closed by server" in reason or "reset by peer" in reason):
            return f"{where} has closed the connection; one that speaks TLS is given as rediss://."
        if unanswered:
            return (
                f"No Redis server answers at {self.address} ({reason}); start one, or give a "
                "folder as the store and have it in LMDB."
            )
        if "DB index" in reason:
            return (
                f"{where} has no such database ({reason}); they are numbered from 0, and how many "
                "there are is `databases` of its configuration."
            )
        if "unknown command" in reason:  # and then the command, which may be the login
            return f"{where} is too old for a command; one before Redis 6 wants ?protocol=2."
        return f"{where} refuses: {reason}."

    def _refused_user(self, reason: str) -> str:
        given = self.get_connection_kwargs()
        if "without any password" in reason:
            return "has no password, and the address gives one; leave it out."
        if given.get("password") is None:
            return (
                f"wants a password, and the address has none; give '{_EXAMPLE}', with the password "
                "in the variable."
            )
        return f"does not take the user or password that the address gives ({reason}); {_ENCODED}."


def connect(url: str) -> redis.Redis:
    """A client of the server at ``url``, which answers.

    Raises:
        ConfigError: ``url`` is no address of Redis.
        ArtifactError: the server does not answer, or refuses.
    """
    client = client_of(url)
    with _options_as_sentence(url):
        client.ping()
    return client


def client_of(url: str, **options: Any) -> Client:
    """A client of the server at ``url``, which need not answer yet.

    Args:
        url: its address.
        options: of redis-py, where the address has no others.

    Raises:
        ConfigError: ``url`` is no address of Redis.
    """
    _check_address(url)
    with _options_as_sentence(url):
        return cast(Client, Client.from_url(url, **options))


@contextmanager
def _options_as_sentence(url: str) -> Iterator[None]:
    try:
        yield
    # of an option in the query; the causes may repeat parts of the address
    except (ValueError, TypeError, OSError) as error:
        if isinstance(error, RecsysError):
            raise
        problem = f" ({error.strerror}: {error.filename})" if isinstance(error, OSError) else ""
        raise ConfigError(
            f"{mask_address(url)} has an option behind the ? that redis-py does not know, "
            f"or with a value that cannot be used{problem}; correct it or leave it out."
        ) from None


def _check_address(url: str) -> None:
    """Refuse what redis-py would read as another address than was meant."""
    problem = None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its message may have a piece of the password
        problem = f"host or port cannot be read: a port is a number up to 65535, and {_ENCODED}"
    else:
        if parts.fragment or (parts.scheme != "unix" and "@" in parts.path):
            problem = f"it cannot be read: {_ENCODED}"
        elif parts.scheme != "unix" and not _is_database(parts.path):
            problem = "behind the host stands the database, a number such as 0, and nothing else"
    if problem is not None:
        raise ConfigError(
            f"{mask_address(url)} is no address of Redis: {problem}. One looks like {_EXAMPLE}."
        )


def _is_database(path: str) -> bool:
    number = path.removeprefix("/")
    return number == "" or (number.isascii() and number.isdecimal())
