"""`git clone`, `fetch` and `pull` over HTTP, with a token as the password. Nothing is pushed."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from starlette.responses import Response, StreamingResponse

from ..bodies import ask_first, spool
from ..call import Call
from ..gitwire import fetching, packets
from ..problems import Refusal
from ..routing import Route
from ..store.access import Right
from ..store.errors import Malformed, NoCredentials, StoreError, TooLarge
from ..store.repos import Repo

NO_PUSH = (
    "This Hub takes no `git push`: upload with `hf upload OWNER/NAME FOLDER`, or"
    " `hublora push FOLDER OWNER/NAME` for an adapter.\n"
)
MAX_FETCH_BYTES = 16 << 20
_NO_CACHE = {"Cache-Control": "no-cache"}


def refs(call: Call) -> Response:
    """GET …/info/refs?service=…: the refs, which begin every conversation."""
    service = call.query("service")
    if service == "git-receive-pack":
        return _no_push()
    if service != "git-upload-pack":
        raise Refusal(403, "Use a git that speaks the smart protocol.")
    listed = fetching.advertise(call.git(_repo(call)))
    body = packets.line(f"# service={service}\n") + packets.FLUSH + listed
    return Response(body, 200, _NO_CACHE, f"application/x-{service}-advertisement")


async def upload_pack(call: Call) -> Response:
    """POST …/git-upload-pack: what a fetch wants and has, answered by a pack."""
    repo = await ask_first(call, _repo)
    async with spool(call, MAX_FETCH_BYTES) as body:
        return await asyncio.to_thread(_fetch, call, repo, body)


upload_pack.only_reads = True  # type: ignore[attr-defined]


def _fetch(call: Call, repo: Repo, body: IO[bytes]) -> Response:
    git = call.git(repo)
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


async def refuse_push(_: Call) -> Response:
    """POST …/git-receive-pack: refused without reading what comes."""
    return _no_push()


def _no_push() -> Response:
    # Plain text is what git shows to a person, as `remote: …`.
    return Response(NO_PUSH, 403, _NO_CACHE, "text/plain; charset=utf-8")


def _repo(call: Call) -> Repo:
    """Return the repo; git is asked for a token where the API would say that nothing is there."""
    call.pieces["repo"] = call.pieces["repo"].removesuffix(".git")
    try:
        return call.repo(Right.READ)
    except StoreError as problem:
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
    Route("POST", "/{prefix}{repo}/git-receive-pack", refuse_push),
]
