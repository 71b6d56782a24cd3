"""One request as the routes see it: who asks, for which repo, with what body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from .problems import Refusal
from .store import NOBODY, Store
from .store.access import Right, require
from .store.errors import (
    BadCredentials,
    Forbidden,
    Malformed,
    NoCredentials,
    RepoNotFound,
    StoreError,
)
from .store.git import GitRepo
from .store.names import check_name
from .store.people import Caller
from .store.repos import Repo

Answer = TypeVar("Answer")
MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 32


@dataclass
class Call:
    """What a route is given."""

    request: Request
    store: Store
    settings: Any
    pieces: dict[str, str]
    body: bytes = b""
    caller: Caller = field(default=NOBODY)

    @property
    def origin(self) -> str:
        """The address that the client used, without a trailing slash."""
        fixed: str | None = self.settings.public_url
        return fixed or str(self.request.base_url).rstrip("/")

    @property
    def kind(self) -> str:
        """The kind of repo that the address speaks of: model, dataset or space."""
        plural = self.pieces.get("kind") or self.pieces.get("prefix") or "models"
        return plural.removesuffix("s")

    def query(self, name: str, default: str = "") -> str:
        """Return one query parameter."""
        return self.request.query_params.get(name, default)

    def queries(self, *names: str) -> list[str]:
        """Return all values of a query parameter under any of its spellings."""
        return [v for k, v in self.request.query_params.multi_items() if k in names and v]

    def flag(self, name: str) -> bool:
        """Tell whether a yes-or-no query parameter says yes."""
        return self.query(name).lower() in ("1", "true", "yes")

    # Repos

    def repo(self, right: Right = Right.READ) -> Repo:
        """Return the repo that the address names, if the caller has that right to it.

        Raises:
            RepoNotFound: There is none, or none for this caller.
        """
        name = self.pieces["repo"]
        repo = find_repo(self.store, self.kind, name)
        require(repo, self.caller, right, self.store.gates.consent(repo, self.caller))
        return repo

    def take_part(self) -> tuple[Repo, str]:
        """Return the repo and the caller's name: anybody who can read it and may write words.

        Raises:
            Forbidden: The token only reads.
        """
        user, repo = self.user(), self.repo(Right.READ)
        if not self.may_take_part(repo):
            raise Forbidden("This token is read-only: a token with the role 'write' is needed.")
        return repo, str(user.name)

    def may_take_part(self, repo: Repo) -> bool:
        """Tell whether the caller's token may write words about a repo that they can read."""
        one_repo = self.caller.only_repo == repo.id and self.caller.repo_role == "write"
        return self.caller.known and (self.caller.role == "write" or one_repo)

    def git(self, repo: Repo) -> GitRepo:
        """Open the git repository of a repo."""
        return self.store.git(repo)

    def user(self) -> Caller:
        """Return the caller, who must be somebody."""
        if not self.caller.known:
            raise NoCredentials
        return self.caller

    # Bodies

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object."""
        found = load_json(self.body or b"{}")
        if not isinstance(found, dict):
            raise Malformed("The body is not a JSON object.")
        return found

    def form(self) -> dict[str, list[str]]:
        """Return the body as a form, or a JSON object in the same shape."""
        if "json" in self.request.headers.get("content-type", ""):
            return {
                key: [str(v) for v in value] if isinstance(value, list) else [str(value)]
                for key, value in self.json().items()
            }
        fields: dict[str, list[str]] = {}
        try:
            text = self.body.decode("utf-8")
            for key, value in parse_qsl(text, keep_blank_values=True, max_num_fields=20_000):
                fields.setdefault(key, []).append(value)
        except ValueError as problem:
            raise Malformed("The body is not a form.") from problem
        return fields


def find_repo(store: Store, kind: str, name: str) -> Repo:
    """Return the repo of that name; a name that cannot be one is simply not found."""
    owner, _, short = name.partition("/")
    try:
        check_name(owner)
        check_name(short)
    except Malformed as problem:
        raise RepoNotFound("that name") from problem
    return store.repos.find(kind, name)


def load_json(text: bytes | str) -> Any:
    """Parse JSON of bounded depth.

    Raises:
        Malformed: It is not JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as problem:
        raise Malformed("The body is not valid JSON.") from problem


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def authenticate(store: Store, request: Request) -> Caller:
    """Return who asks: a bearer token, or a token as the password of basic authentication.

    Raises:
        BadCredentials: A token that does not, or no longer, open anything.
    """
    header = request.headers.get("authorization")
    if header is None:
        return NOBODY
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return store.people.authenticate(value.strip())
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as problem:
            raise BadCredentials from problem
        user, _, password = pair.partition(":")
        return store.people.authenticate(password or user)
    raise BadCredentials


async def chunks(request: Request, limit: int, patience: float) -> AsyncIterator[bytes]:
    """Yield the body as it comes; a sender who says more than `limit` or falls silent is cut off.

    Raises:
        Refusal: Too much (413), or too slow (408).
    """
    announced = request.headers.get("content-length")
    if announced and announced.isdigit() and int(announced) > limit:
        raise Refusal(413, f"The body is larger than {limit} bytes.", {"Connection": "close"})
    stream, total = request.stream(), 0
    while True:
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(stream, None)
        except TimeoutError as problem:
            raise Refusal(408, "The body came too slowly.", {"Connection": "close"}) from problem
        except ClientDisconnect as problem:
            raise Refusal(400, "The body ended early.") from problem
        if chunk is None:
            return
        total += len(chunk)
        if total > limit:
            raise Refusal(413, f"The body is larger than {limit} bytes.", {"Connection": "close"})
        yield chunk


async def read_body(request: Request, limit: int, patience: float) -> bytes:
    """Return the whole of a small body."""
    return b"".join([chunk async for chunk in chunks(request, limit, patience)])


async def ask_first(call: Call, question: Callable[[Call], Answer]) -> Answer:
    """Return the answer to `question` before any of the body is taken in.

    A refusal is sent once a body of ordinary size has been read to nowhere: who is still sending
    does not hear it.
    """
    try:
        return await asyncio.to_thread(question, call)
    except StoreError:
        announced = call.request.headers.get("content-length", "")
        if not announced.isdigit() or int(announced) <= MAX_JSON_BYTES:
            with contextlib.suppress(Refusal):
                async for _ in chunks(call.request, MAX_JSON_BYTES, call.settings.body_seconds):
                    pass
        raise


_spooled = 0  # bytes of all the bodies that `spool` holds at the moment


@contextlib.asynccontextmanager
async def spool(call: Call, limit: int) -> AsyncIterator[IO[bytes]]:
    """Hold the body as a file; small ones never touch the disk.

    Raises:
        Refusal: It is too large (413) or too slow (408), or others take all the room (503).
    """
    global _spooled
    folder, size = str(call.store.folder / "uploads"), 0
    with tempfile.SpooledTemporaryFile(max_size=4 << 20, dir=folder) as file:
        try:
            async for chunk in chunks(call.request, limit, call.settings.body_seconds):
                if _spooled + len(chunk) > call.settings.max_spooled_bytes:
                    raise Refusal(
                        503,
                        "Other commits take all the room at the moment: try again.",
                        {"Retry-After": "10", "Connection": "close"},
                    )
                size += len(chunk)
                _spooled += len(chunk)
                file.write(chunk)
            file.seek(0)
            yield file
        finally:
            _spooled -= size
