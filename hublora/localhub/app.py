"""The ASGI application: finds route, caller and body, and turns refusals into replies."""

from __future__ import annotations

import inspect
import logging
import re
import time
import uuid
from dataclasses import dataclass

import pygit2
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from . import problems
from .call import MAX_JSON_BYTES, Call, authenticate, read_body
from .guard import SAFE_METHODS, check_headers, check_origin, is_loopback
from .problems import Refusal
from .routes import ROUTES
from .routes.pages import page
from .routing import Router
from .store import Store
from .store.errors import DamagedRepo, StoreError

log = logging.getLogger("hublora.hub")
_WORKERS = 32
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
    max_file_bytes: int = 1 << 40
    header_seconds: float = 20.0
    body_seconds: float = 60.0

    @property
    def loopback(self) -> bool:
        """Whether only this machine is to be answered, and no proxy stands in front."""
        return is_loopback(self.host) and self.public_url is None


class Hub:
    """The embedded Hub as an ASGI application over one store."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self._router = Router(ROUTES)
        self._limiter: CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"unknown scope {scope['type']}")
        request = Request(scope, receive)
        started = time.perf_counter()
        response = await self._answer(request)
        response.headers["X-Request-Id"] = request_id(request)
        await response(scope, receive, send)
        log.info(
            "%s %s %d %.0f ms",
            scope["method"],
            _path(scope),
            response.status_code,
            (time.perf_counter() - started) * 1000,
        )

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._dispatch(request)
        except Exception as problem:
            told = _told(request, problem)
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
        self._limiter = self._limiter or CapacityLimiter(_WORKERS)
        caller = await to_thread.run_sync(authenticate, self.store, request, limiter=self._limiter)
        call = Call(request, self.store, self.settings, pieces, caller=caller)
        if inspect.iscoroutinefunction(handler):
            answer = await handler(call)
        else:
            if request.method not in SAFE_METHODS:
                call.body = await read_body(request, MAX_JSON_BYTES, self.settings.body_seconds)
            answer = await to_thread.run_sync(handler, call, limiter=self._limiter)
        return answer if isinstance(answer, Response) else JSONResponse(answer)


def _told(request: Request, problem: Exception) -> StoreError | Refusal:
    """Return what the client is told of `problem`; what is this server's own goes to its log."""
    if isinstance(problem, StoreError | Refusal):
        return problem
    what = f"{request.method} {_path(request.scope)}"
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
