"""The ASGI application: finds route, caller and body, and turns refusals into replies."""

from __future__ import annotations

import inspect
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pygit2
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from . import problems
from .bodies import MAX_JSON_BYTES, MAX_STRANGERS_BYTES, Room
from .call import Call, authenticate
from .delivery import Delivery
from .guard import SAFE_METHODS, check_headers, check_origin, is_loopback
from .machine import lacking
from .problems import Refusal
from .routes import ROUTES
from .routes.pages import page
from .routing import Router
from .sending import in_pieces
from .store import NOBODY, Store
from .store.errors import DamagedRepo, StoreError
from .store.people import Caller

log = logging.getLogger("hublora.hub")
# How many requests of a kind are worked on at once; the others wait.
_WORKERS = {"always": 2, "authentication": 4, "known": 16, "strangers": 12}
_REQUEST_ID = re.compile(r"[\w.:;=,/+ -]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """How a server behaves; defaults are those of the command line."""

    host: str = "127.0.0.1"
    port: int = 8000
    user: str = "me"
    read_only: bool = False
    public_url: str | None = None
    part_bytes: int = 64 << 20
    max_regular_bytes: int = 10 << 20
    max_commit_bytes: int = 2 << 30
    max_spooled_bytes: int = 8 << 30
    max_bodies_bytes: int = 256 << 20
    max_file_bytes: int = 1 << 40
    header_seconds: float = 20.0
    body_seconds: float = 60.0

    @property
    def loopback(self) -> bool:
        """Whether only this machine is to be answered, and no proxy stands in front."""
        return is_loopback(self.host) and self.public_url is None

    @property
    def prefix(self) -> str:
        """The path of `public_url`, quoted, without a trailing slash; empty without one."""
        return quote(urlsplit(self.public_url or "").path.rstrip("/"), safe="/%")


class Hub:
    """The embedded Hub as an ASGI application over one store."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.delivery = Delivery(anywhere=settings.loopback)
        self._router = Router(ROUTES)
        self._room = Room(settings.max_bodies_bytes)
        self._limiters: dict[str, CapacityLimiter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"unknown scope {scope['type']}")
        request = Request(scope, receive)
        started = time.perf_counter()
        response = await self._answer(request)
        response.headers["X-Request-Id"] = request_id(request)
        if re.match("/(?!/)", place := response.headers.get("location", "")):
            response.headers["Location"] = self.settings.prefix + place
        await response(scope, receive, in_pieces(send))
        log.info(
            "%s %s %d %.0f ms %s user:%s",
            scope["method"],
            _path(scope),
            response.status_code,
            (time.perf_counter() - started) * 1000,
            request.client.host if request.client else "-",
            getattr(request.state, "user", "-"),
        )

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._dispatch(request)
        except Exception as problem:
            if isinstance(problem, StoreError | Refusal):
                told = problem
            else:
                told = await to_thread.run_sync(_told, request, problem, self.store.folder)
            if "text/html" in request.headers.get("accept", ""):
                return await to_thread.run_sync(self._error_page, request, told)
            return problems.reply(told)

    def _error_page(self, request: Request, problem: StoreError | Refusal) -> Response:
        """Return a refusal as a page: a browser asked."""
        plain = problems.reply(problem)
        call = Call(request, self.store, self.settings, {})
        answer = page(call, "error", plain.status_code, number=plain.status_code, message=problem)
        for name, value in plain.headers.items():
            if name in ("www-authenticate", "allow", "connection"):
                answer.headers[name] = value
        return answer

    async def _dispatch(self, request: Request) -> Response:
        check_headers(request)
        check_origin(request, loopback=self.settings.loopback, public_url=self.settings.public_url)
        raw = request.scope.get("raw_path") or request.scope["path"].encode()
        handler, pieces = self._router.find(request.method, raw.decode("latin-1"))
        if self.settings.read_only and not _reads(request, handler):
            raise Refusal(403, "This Hub is read-only.")
        caller = NOBODY
        if "authorization" in request.headers:
            at_the_door = self._limiter("authentication")
            caller = await to_thread.run_sync(
                authenticate, self.store, request, limiter=at_the_door
            )
            request.state.user = caller.name
        call = Call(request, self.store, self.settings, pieces, caller=caller)
        call.delivery = self.delivery
        limiter = self._limiter(_queue(handler, caller))
        if inspect.iscoroutinefunction(handler):
            answer = await handler(call)
            return answer if isinstance(answer, Response) else JSONResponse(answer)
        if request.method in SAFE_METHODS:
            return await to_thread.run_sync(_response, handler, call, limiter=limiter)
        limit = MAX_JSON_BYTES if caller.known else MAX_STRANGERS_BYTES
        async with self._room.body(request, limit, self.settings.body_seconds) as call.body:
            return await to_thread.run_sync(_response, handler, call, limiter=limiter)

    def _limiter(self, queue: str) -> CapacityLimiter:
        """Return what keeps one kind of requests from taking every worker from the others."""
        if queue not in self._limiters:
            self._limiters[queue] = CapacityLimiter(_WORKERS[queue])
        return self._limiters[queue]


def _queue(handler: Callable[[Call], Any], caller: Caller) -> str:
    if getattr(handler, "always", False):
        return "always"
    return "known" if caller.known else "strangers"


def _response(handler: Callable[[Call], Any], call: Call) -> Response:
    answer = handler(call)
    return answer if isinstance(answer, Response) else JSONResponse(answer)


def _told(request: Request, problem: Exception, folder: Path) -> StoreError | Refusal:
    """Return what the client is told of `problem`; what is this server's own goes to its log."""
    what = f"{request.method} {_path(request.scope)}"
    if refusal := lacking(problem, folder):
        log.error("%s: %s", what, problem)
        return refusal
    if isinstance(problem, pygit2.GitError):
        log.error("%s: what git has stored cannot be read: %s", what, problem)
        return DamagedRepo("behind this address", str(problem))
    log.error("%s failed", what, exc_info=problem)
    return Refusal(500, "Something went wrong here: the server's log says more.")


def _path(scope: Scope) -> str:
    """Return the path alone, as a log may have it: a query may carry a link's signature."""
    path: str = scope["path"]
    return path.encode("unicode_escape").decode("ascii")[:300]


def request_id(request: Request) -> str:
    """Return the id that the client gave its request, or a new one."""
    for name in ("x-request-id", "x-amzn-trace-id"):
        given = request.headers.get(name, "")
        if _REQUEST_ID.fullmatch(given):
            return given
    return str(uuid.uuid4())


def _reads(request: Request, handler: object) -> bool:
    return request.method in SAFE_METHODS or getattr(handler, "only_reads", False)
