"""`git clone`, `pull` and `push` over HTTP, with a token as the password."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from starlette.responses import Response, StreamingResponse

from ..call import Call, spool
from ..gitwire import fetching, packets, pushing
from ..problems import Refusal
from ..routing import Route
from ..store.access import Right
from ..store.errors import Forbidden, Malformed, NoCredentials, RepoNotFound, StoreError, TooLarge
from ..store.repos import Repo

SERVICES = {
    "git-upload-pack": fetching.CAPABILITIES,
    "git-receive-pack": pushing.CAPABILITIES,
}
MAX_FETCH_BYTES = 16 << 20
_NO_CACHE = {"Cache-Control": "no-cache"}


def refs(call: Call) -> Response:
    """GET …/info/refs?service=…: the refs, which begin every conversation."""
    service = call.query("service")
    if service not in SERVICES:
        raise Refusal(403, "Use a git that speaks the smart protocol.")
    repo = _repo(call, pushes=service == "git-receive-pack")
    listed = fetching.advertise(call.git(repo), SERVICES[service])
    body = packets.line(f"# service={service}\n") + packets.FLUSH + listed
    return Response(body, 200, _NO_CACHE, f"application/x-{service}-advertisement")


async def upload_pack(call: Call) -> Response:
    """POST …/git-upload-pack: what a fetch wants and has, answered by a pack."""
    body = await spool(call, MAX_FETCH_BYTES, str(call.store.folder / "uploads"))
    with body:
        return await asyncio.to_thread(_fetch, call, body)


upload_pack.only_reads = True  # type: ignore[attr-defined]


def _fetch(call: Call, body: IO[bytes]) -> Response:
    git = call.git(_repo(call, pushes=False))
    wish = fetching.read_wish(_inflated(call, body, MAX_FETCH_BYTES))
    tips = fetching.wanted_commits(git, wish)
    folder = Path(tempfile.mkdtemp(prefix="fetch-", dir=call.store.folder / "uploads"))

    def parts() -> Iterator[bytes]:
        try:
            yield from fetching.answer(git, wish, tips, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return StreamingResponse(
        parts(), 200, _NO_CACHE, media_type="application/x-git-upload-pack-result"
    )


async def receive_pack(call: Call) -> Response:
    """POST …/git-receive-pack: commands and a pack; answered when all is on disk."""
    uploads = str(call.store.folder / "uploads")
    body = await spool(call, call.settings.max_commit_bytes, uploads)
    with body:
        return await asyncio.to_thread(_push, call, body)


def _push(call: Call, body: IO[bytes]) -> Response:
    repo = _repo(call, pushes=True)
    stream = _inflated(call, body, call.settings.max_commit_bytes)
    commands, capabilities = pushing.read_commands(stream)
    try:
        results = pushing.receive(
            call.store,
            repo,
            commands,
            stream,
            call.settings.max_regular_bytes,
            lambda ref: may_push(call, repo, ref),
        )
        content = pushing.report(results, capabilities)
    except StoreError as problem:
        refused: list[tuple[str, str | None]] = [(c.ref, "not unpacked") for c in commands]
        content = pushing.report(refused, capabilities, problem.message)
    return Response(content, 200, _NO_CACHE, "application/x-git-receive-pack-result")


def may_push(call: Call, repo: Repo, ref: str) -> None:
    """Let a ref be moved: an open pull request's by its author too.

    Raises:
        Forbidden: The caller has no right to it.
    """
    if ref.startswith("refs/pr/"):
        opened = call.store.discussions.by_ref(repo, ref)
        if opened is None or not opened.is_open:
            raise Forbidden("there is no such open pull request")
        if opened.author == call.caller.name:
            return
    if call.store.right(repo, call.caller) < Right.WRITE:
        raise Forbidden("you have no right to change this repo")


def _repo(call: Call, *, pushes: bool) -> Repo:
    """Return the repo; git is asked for a token where the API would say that nothing is there."""
    call.pieces["repo"] = call.pieces["repo"].removesuffix(".git")
    try:
        return call.take_part()[0] if pushes else call.repo(Right.READ)
    except (RepoNotFound, StoreError) as problem:
        if not call.caller.known:
            raise NoCredentials("A token is needed, as the password.") from problem
        raise


def _inflated(call: Call, body: IO[bytes], limit: int) -> IO[bytes]:
    """Return the body as it was before the client compressed it."""
    if call.request.headers.get("content-encoding", "identity") in ("identity", ""):
        return body
    if call.request.headers["content-encoding"] not in ("gzip", "x-gzip"):
        raise Refusal(415, "Only gzip is taken.")
    plain = tempfile.SpooledTemporaryFile(max_size=4 << 20)  # noqa: SIM115 - closed when collected
    try:
        with gzip.open(body) as packed:
            while chunk := packed.read(1 << 20):
                plain.write(chunk)
                if plain.tell() > limit:
                    raise TooLarge("The body is too large.")
    except (OSError, EOFError) as problem:
        raise Malformed("The body is not gzip.") from problem
    plain.seek(0)
    return plain


ROUTES = [
    Route("GET", "/{prefix}{repo}/info/refs", refs),
    Route("POST", "/{prefix}{repo}/git-upload-pack", upload_pack),
    Route("POST", "/{prefix}{repo}/git-receive-pack", receive_pack),
]
