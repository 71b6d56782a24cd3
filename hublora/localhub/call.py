"""One request as the routes see it: who asks, for which repo, with what body."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from .delivery import Delivery
from .store import NOBODY, Store
from .store.access import Right, require
from .store.errors import (
    BadCredentials,
    Forbidden,
    Malformed,
    NoCredentials,
    RepoNotFound,
)
from .store.git import GitRepo
from .store.names import check_name
from .store.people import Caller
from .store.repos import Repo

MAX_VALUES = 100  # of one query parameter
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass
class Call:
    """What a route is given."""

    request: Request
    store: Store
    settings: Any
    pieces: dict[str, str]
    body: bytes = b""
    caller: Caller = field(default=NOBODY)
    delivery: Delivery | None = None  # what sends to webhooks; None for nothing

    @property
    def origin(self) -> str:
        """The address that the client used, without a trailing slash."""
        fixed: str | None = self.settings.public_url
        return fixed or str(self.request.base_url).rstrip("/")

    @property
    def prefix(self) -> str:
        """The path of `--public-url`, which a proxy takes off; empty without one."""
        prefix: str = self.settings.prefix
        return prefix

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
        found = [v for k, v in self.request.query_params.multi_items() if k in names and v]
        if len(found) > MAX_VALUES:
            message = f"{names[0]} is given {len(found)} times: at most {MAX_VALUES} are taken."
            raise Malformed(message)
        return found

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

    def take_part(self, right: Right = Right.READ) -> tuple[Repo, str]:
        """Return the repo and the caller's name: anybody with that right who may write words.

        Raises:
            Forbidden: The token only reads.
        """
        user, repo = self.user(), self.repo(right)
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
    """Parse JSON of bounded depth, whose text is Unicode all through.

    Raises:
        Malformed: It is not JSON, or holds half a character.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        found = json.loads(text, parse_constant=_refuse, parse_int=_whole)
    except (ValueError, RecursionError) as problem:
        raise Malformed("The body is not valid JSON.") from problem
    # Only an escape can bring half of a surrogate pair; together, two are one character.
    if _SURROGATE.search(text):
        try:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as problem:
            raise Malformed("The body has half of a surrogate pair in a text.") from problem
    return found


def _whole(digits: str) -> int:
    """Return a whole number that the database can hold."""
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError(digits)
    return number


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
