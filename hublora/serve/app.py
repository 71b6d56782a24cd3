"""The web application: routes, keys, errors in each protocol's own form."""

from __future__ import annotations

import base64
import hmac
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hublora._version import __version__
from hublora.errors import HubloraError
from hublora.localhub.guard import check_headers, check_origin
from hublora.localhub.problems import Refusal
from hublora.serve.api import automatic1111, inference, openai
from hublora.serve.errors import Cancelled
from hublora.serve.service import Service, status_of

log = logging.getLogger("hublora.serve")

_CLIENT_IS_GONE = 499  # nginx's; nobody reads it
_MOST_BODY = 1 << 20  # bytes
_OPEN = ("/health", "/ready")  # whatever watches the process has no key


def create_app(service: Service) -> FastAPI:
    """Return the application of a service, which it loads when it starts and closes at its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=service.load, name="hublora-load", daemon=True).start()
        yield
        service.close()

    # The pages of FastAPI fetch their scripts from elsewhere; /openapi.json says the same.
    app = FastAPI(
        title="hublora", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.service = service
    app.include_router(openai.router)
    app.include_router(automatic1111.router)
    app.include_router(inference.router)
    _add_errors(app)
    app.add_middleware(_Guard, service=service)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Say whether images can be generated: 503 until the base is loaded."""
        return {"base": service.engine.base}

    return app


def _add_errors(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> JSONResponse:
        status = status_of(error)
        headers = {"Retry-After": "2"} if status in (429, 503) else None
        return _problem(request, status, str(error), headers)

    async def malformed(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return _problem(request, 422, f"{where}: {first['msg']}." if where else first["msg"])

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _problem(request, error.status_code, str(error.detail))

    async def gone(request: Request, error: Exception) -> JSONResponse:
        return _problem(request, _CLIENT_IS_GONE, "The client is gone.")

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
        return _problem(request, 500, "Something went wrong here; the server's log says more.")

    app.add_exception_handler(HubloraError, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Cancelled, gone)
    app.add_exception_handler(Exception, unexpected)


def _problem(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    path = request.url.path
    protocols: tuple[Any, ...] = (openai, automatic1111)
    protocol = next((one for one in protocols if path.startswith(one.PREFIX)), inference)
    return JSONResponse(protocol.error_body(status, message), status, headers)


class _Guard:
    """Lets in who has the key, and no page of another site.

    A page that a browser shows may send requests to this machine without anybody's knowledge.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._key = app, service.settings.key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            check_headers(request)
            check_origin(request, loopback=self._key is None)
        except Refusal as refusal:
            answer = _problem(request, refusal.status, str(refusal), refusal.headers)
        else:
            if request.url.path in _OPEN or self._has_key(request):
                await self._app(scope, _limited(receive), send)
                return
            answer = _problem(
                request, 401, "The key is missing or wrong (Authorization: Bearer …)."
            )
        await answer(scope, receive, send)

    def _has_key(self, request: Request) -> bool:
        if self._key is None:
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.casefold() not in ("bearer", "basic"):
            return False
        if kind.casefold() == "basic":  # the key is the password, whoever's
            with suppress(ValueError):
                given = base64.b64decode(given).decode().partition(":")[2]
        return hmac.compare_digest(given.encode(), self._key.encode())


def _limited(receive: Receive) -> Receive:
    """Return `receive` of a request whose body may have so many bytes and no more."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > _MOST_BODY:
            raise HTTPException(413, f"The body is longer than {_MOST_BODY} bytes.")
        return message

    return limited
