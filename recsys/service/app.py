"""The endpoints."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from recsys.core.errors import ConfigError, DataError, RecsysError
from recsys.core.version import VERSION
from recsys.data.stores.live.journal import AwayError
from recsys.service import metrics
from recsys.service.config import ServeConfig
from recsys.service.facts import user_facts
from recsys.service.inspector import add_inspector
from recsys.service.lane import FullError, LateError
from recsys.service.messages import Event, Item, Open, OperatingPoint, Recommend, schema
from recsys.service.worker import Worker

_T = TypeVar("_T")
_LOG = logging.getLogger("uvicorn.error")
_Endpoint = Callable[[Request], Awaitable[Any]]
_UNAUTHORISED = "the request has no API key, or another one: send the header X-API-Key"
_KEY = "x-api-key"


class RefusedError(Exception):
    """A request that is answered by a sentence.

    Args:
        status: of HTTP.
        sentence: what is wrong with it.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def make_app(config: ServeConfig) -> FastAPI:
    """The application of one process; it opens what it serves when it starts up.

    Raises:
        ConfigError: the environment has no such key.
    """
    key = api_key(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics.forget_the_dead()
        worker = Worker(config)
        app.state.worker = worker
        watching = asyncio.create_task(worker.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        worker.close()

    app = FastAPI(title="recsys", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    endpoints = Endpoints(app, config)
    for method, path, endpoint, body in (
        ("POST", "/recommend", endpoints.recommend, Recommend),
        ("POST", "/open", endpoints.open, Open),
        ("POST", "/events", endpoints.events, list[Event]),
        ("POST", "/items", endpoints.items, list[Item]),
        ("DELETE", "/items/{item:path}", endpoints.withdraw, None),
        ("POST", "/operating-point", endpoints.operating_point, OperatingPoint),
        ("GET", "/explain/{request}", endpoints.explain, None),
        ("GET", "/users", endpoints.users, None),
        ("GET", "/users/{user:path}", endpoints.user, None),
        ("GET", "/funnel", endpoints.funnel, None),
        ("GET", "/metrics", endpoints.metrics, None),
        ("GET", "/health", endpoints.health, None),
        ("GET", "/ready", endpoints.ready, None),
    ):
        is_open = path in ("/health", "/ready")
        name = path.split("/")[1]
        app.add_api_route(
            path,
            _answering(name, endpoint, None if is_open else key, config),
            methods=[method],
            name=name,
            response_class=PlainTextResponse if path == "/metrics" else JSONResponse,
            summary=(endpoint.__doc__ or "").strip(),
            responses=_responses(path),
            openapi_extra=_described(path, body),
        )
    add_inspector(app, config.inspector)
    app.add_exception_handler(HTTPException, _no_such_address)
    return app


class Endpoints:
    """What each address answers.

    Args:
        app: has the worker.
        config: of the service.
    """

    def __init__(self, app: FastAPI, config: ServeConfig) -> None:
        self._app, self._config = app, config
        self._recommend = msgspec.json.Decoder(Recommend)
        self._open = msgspec.json.Decoder(Open)
        self._events = msgspec.json.Decoder(list[Event])
        self._items = msgspec.json.Decoder(list[Item])
        self._point = msgspec.json.Decoder(OperatingPoint)

    async def recommend(self, request: Request) -> Any:
        """A list of items for a user."""
        asked = await self._body(request, self._recommend)
        self._refuse_long(asked.k)
        inspected = asked.changes or asked.explain or asked.draws is not None
        if inspected and not self._config.inspector:
            raise RefusedError(
                403,
                "changes, draws and explain are for inspectors: start the service with "
                "inspector=true",
            )
        answer = await self._worker.recommend(asked)
        found = {
            "request": str(answer.number),
            "items": answer.items,
            "scores": answer.scores,
            "generation": answer.generation,
            "fallback": answer.fallback,
            "in_advance": answer.in_advance,
        }
        if (why := answer.why_empty) is not None:
            found["empty"] = why
        if asked.explain and answer.fallback is None:
            found["explanation"] = self._worker.explain(answer)
        return found

    async def open(self, request: Request) -> Any:
        """A user has opened the app: make a list beside, if a visit is likely and would wait."""
        asked = await self._body(request, self._open)
        self._refuse_long(asked.k)
        decision = await self._worker.opened(asked)
        told = {name: getattr(decision, name) for name in ("listed", "visit", "wait_ms", "why")}
        return {name: of for name, of in told.items() if of is not None}

    async def events(self, request: Request) -> Any:
        """Take in what users did; it is known to the next request when this is answered."""
        events = await self._report(request, self._events)
        reported = await self._worker.report(events)
        return {"taken": reported.taken, "set_aside": reported.set_aside}

    async def items(self, request: Request) -> Any:
        """Take in items that have come; within seconds they are among the candidates."""
        items = await self._report(request, self._items)
        announced = await self._worker.announce(items)
        return {"taken": announced.taken, "set_aside": announced.set_aside}

    async def withdraw(self, request: Request) -> Any:
        """Take an item out of all lists, until it is announced again."""
        item = request.path_params["item"]
        if not await self._worker.withdraw(item):
            raise RefusedError(404, f"nothing is known of an item {item[:40]}")
        return {"withdrawn": item}

    async def operating_point(self, request: Request) -> Any:
        """Go over to an operating point, all workers within a second."""
        asked = await self._body(request, self._point)
        await self._worker.go_over(asked.point)
        return {"point": asked.point, "points": list(self._worker.served.generation.points)}

    async def explain(self, request: Request) -> Any:
        """What became of every candidate of a request."""
        number = request.path_params["request"]
        if not (number.isascii() and number.isdecimal() and len(number) < 20):
            raise RefusedError(404, f"{number[:40]} is no number of a request")
        try:
            return await self._worker.explained(int(number))
        except DataError:
            raise RefusedError(404, f"nothing is known of the request {number}") from None

    async def users(self, request: Request) -> Any:
        """Some users, to choose from."""
        return {"users": self._worker.served.some_users()}

    async def user(self, request: Request) -> Any:
        """A user's newest events, with what is known of the items."""
        work = partial(user_facts, self._worker.served, request.path_params["user"])
        return await self._worker.beside(work)

    async def funnel(self, request: Request) -> Any:
        """What is served: sources, stages, tasks and all settings."""
        served = self._worker.served
        funnel = served.declared
        return {
            "generation": served.generation.number,
            "dataset": served.dataset.manifest.name,
            "inspector": self._config.inspector,
            "clock": self._config.clock,
            "now": await self._worker.now(),
            "sources": served.described.sources,
            "stages": served.described.stages,
            "tasks": served.described.tasks,
            "value": funnel.value.expression,
            "groups": served.known.groups,
            "settings": asdict(funnel),
        }

    async def metrics(self, request: Request) -> Any:
        """What all processes have counted."""
        return Response(await self._worker.beside(metrics.exposed), media_type=metrics.CONTENT_TYPE)

    async def health(self, request: Request) -> Any:
        """Whether the process is there, and what is wrong."""
        refused = self._worker.refused
        return {
            "status": "ok",
            "generation": self._worker.served.generation.number,
            "operating_point": self._worker.served.point,
            "refused": refused and {"generation": refused[0], "why": refused[1]},
            "ledger_problem": self._worker.ledger_problem,
        }

    async def ready(self, request: Request) -> Any:
        """Whether lists can be asked for."""
        return {"ready": True, "generation": self._worker.served.generation.number}

    @property
    def _worker(self) -> Worker:
        worker: Worker = self._app.state.worker
        return worker

    def _refuse_long(self, k: int) -> None:
        most = self._config.limits.items
        if k > most:
            raise RefusedError(400, f"k is {k:,}, a list has at most {most:,} items")

    async def _report(self, request: Request, decoder: msgspec.json.Decoder[list[_T]]) -> list[_T]:
        found, most = await self._body(request, decoder), self._config.limits.events
        if len(found) > most:
            raise RefusedError(400, f"{len(found):,} rows, a report has at most {most:,}")
        return found

    async def _body(self, request: Request, decoder: msgspec.json.Decoder[_T]) -> _T:
        most, parts, size = self._config.limits.body_bytes, [], 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > most:
                raise RefusedError(413, f"the body has more than {most:,} bytes")
        try:
            return decoder.decode(b"".join(parts))
        except (msgspec.DecodeError, RecursionError) as error:
            raise RefusedError(400, f"the body cannot be used: {error}") from None


def api_key(config: ServeConfig) -> str | None:
    """The key that requests must have; None for none.

    Raises:
        ConfigError: it is not in the environment.
    """
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(
            f"api_key_env={config.api_key_env}: the environment has no such variable; set it to "
            "the key that requests must have, or leave api_key_env out."
        )
    return key


async def _no_such_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = f"{request.method} {request.url.path} is no address of the service."
    return JSONResponse({"error": problem}, error.status_code)


def _answering(
    name: str, endpoint: _Endpoint, key: str | None, config: ServeConfig
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose problems are sentences, and that is counted."""
    seconds = metrics.SECONDS.labels(name)

    async def answer(request: Request) -> Response:
        started = time.perf_counter()
        headers = {}
        try:
            if key is not None:
                given = request.headers.get(_KEY, "")
                if not hmac.compare_digest(given.encode("latin-1"), key.encode()):
                    raise RefusedError(401, _UNAUTHORISED)
            status, found = 200, await endpoint(request)
        except RefusedError as refused:
            status, found = refused.status, {"error": f"{refused}."}
        except (FullError, LateError):
            metrics.BUSY.inc()
            status, found = 503, {"error": "so many ask that this one has to come again."}
            headers["Retry-After"] = str(config.limits.retry_after)
        except ConfigError as error:
            status, found = 400, {"error": str(error)}
        except AwayError as error:
            status, found = 503, {"error": str(error)}
            headers["Retry-After"] = str(config.limits.retry_after)
        except RecsysError as error:
            status, found = 500, {"error": str(error)}
        except Exception:
            _LOG.exception("%s failed", name)
            status, found = 500, {"error": "something unexpected went wrong; the log has it."}
        seconds.observe(time.perf_counter() - started)
        metrics.REQUESTS.labels(name, status).inc()
        if isinstance(found, Response):
            return found
        content = msgspec.json.encode(found)
        return Response(content, status, headers, media_type="application/json")

    return answer


def _responses(path: str) -> dict[int | str, dict[str, Any]]:
    """What may be answered beside 200, for the description."""
    found = {401: "No API key.", 503: "Come again."}
    if path in ("/recommend", "/open", "/events", "/items", "/operating-point"):
        found |= {400: "The body cannot be used.", 403: "Not allowed.", 413: "Too large."}
    if path.startswith(("/explain", "/items/")):
        found[404] = "Nothing is known of it."
    return {status: {"description": text} for status, text in found.items()}


def _described(path: str, body: Any) -> dict[str, Any]:
    found: dict[str, Any] = {} if body is None else schema(body)
    if "{" in path:
        name = path.partition("{")[2].removesuffix("}").removesuffix(":path")
        place = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        found["parameters"] = [place]
    return found
