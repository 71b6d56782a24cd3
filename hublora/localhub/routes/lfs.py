"""Large files by the Git LFS batch API, transfers `basic` and the Hub's `multipart`.

Batch API: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md. Multipart as
`huggingface_hub.lfs` does it: `header` carries `chunk_size` and one link for each part, `href`
takes the list of parts when all are there.
"""

from __future__ import annotations

import asyncio
from math import ceil
from typing import Any

from starlette.responses import JSONResponse, Response

from .. import links
from ..bodies import chunks, read_body
from ..call import Call, load_json
from ..routing import Route
from ..sending import Content
from ..store.access import Right
from ..store.errors import EntryNotFound, Malformed, NoCredentials, StoreError, TooLarge
from ..store.large import Incoming
from ..store.large_names import large_names
from ..store.names import check_sha256, check_size
from ..store.parts import Part
from ..store.pointers import Pointer
from ..store.repos import Repo

MEDIA_TYPE = "application/vnd.git-lfs+json"
MAX_OBJECTS = 2000
MAX_PARTS = 10_000
# So much of what is said to be here already is read and compared before an upload is waved through.
CHECKED_BYTES = 512 << 20


def batch(call: Call) -> Response:
    """POST /{repo}.git/info/lfs/objects/batch: where to put or get each object."""
    call.pieces["repo"] = call.pieces["repo"].removesuffix(".git")
    wanted = call.json()
    operation, objects = wanted.get("operation"), wanted.get("objects")
    if operation not in ("upload", "download") or not isinstance(objects, list):
        raise Malformed("An LFS batch has an operation and objects.")
    if len(objects) > MAX_OBJECTS:
        raise TooLarge(f"More than {MAX_OBJECTS} objects in one batch.")
    # Whoever may open a pull request may upload: to know the repo and to be somebody is enough.
    repo = _repo(call, uploads=operation == "upload")
    pointers = [_pointer(item) for item in objects]
    if operation == "upload":
        _set_damaged_aside(call, repo, pointers)
    multipart = "multipart" in (wanted.get("transfers") or [])
    answers = [_answer(call, repo, operation, pointer, multipart) for pointer in pointers]
    parts = any("chunk_size" in _upload_header(answer) for answer in answers)
    body = {
        "transfer": "multipart" if parts else "basic",
        "objects": answers,
        "hash_algo": "sha256",
    }
    return JSONResponse(body, media_type=MEDIA_TYPE)


def _repo(call: Call, *, uploads: bool) -> Repo:
    """Return the repo; git-lfs asks for a token only when it is told to by a 401."""
    try:
        return call.take_part()[0] if uploads else call.repo(Right.READ)
    except StoreError as problem:
        if not call.caller.known:
            raise NoCredentials("A token is needed, as the password.") from problem
        raise


def _set_damaged_aside(call: Call, repo: Repo, pointers: list[Pointer]) -> None:
    """Look at what the repo has of an upload: whoever sends a file again may want to mend it."""
    left = CHECKED_BYTES
    for pointer in pointers:
        if pointer.size <= left and call.store.large.has(repo.id, pointer.oid):
            left -= pointer.size
            call.store.large.is_sound(pointer.oid)


def _answer(
    call: Call, repo: Repo, operation: str, pointer: Pointer, multipart: bool
) -> dict[str, Any]:
    """Return one object's line of a batch answer."""
    facts: dict[str, Any] = {"oid": pointer.oid, "size": pointer.size}
    held = call.store.large.has(repo.id, pointer.oid)
    if operation == "download":
        if held is None:
            return facts | {"error": {"code": 404, "message": "Object does not exist"}}
        return facts | {"actions": {"download": _action(call, repo, pointer, "download")}}
    if pointer.size > call.settings.max_file_bytes:
        return facts | {"error": {"code": 413, "message": "The file is too large"}}
    if held is not None or take_over(call, repo, pointer.oid):
        return facts
    verify = _action(call, repo, pointer, "verify")
    upload = _action(call, repo, pointer, "upload")
    if multipart and pointer.size > call.settings.part_bytes:
        parts = ceil(pointer.size / call.settings.part_bytes)
        if parts > MAX_PARTS:
            return facts | {"error": {"code": 413, "message": "The file is too large"}}
        upload = _action(call, repo, pointer, "complete")
        upload["header"] = {"chunk_size": str(call.settings.part_bytes)} | {
            str(number): _action(call, repo, pointer, "part", number)["href"]
            for number in range(1, parts + 1)
        }
    return facts | {"actions": {"upload": upload, "verify": verify}}


def take_over(call: Call, repo: Repo, oid: str) -> Pointer | None:
    """Give the repo a file that the caller can read elsewhere: it need not travel again.

    To name a sha256 proves nothing; the caller must have the right to the file.
    """
    for holder in call.store.large.holders(oid):
        source = call.store.repos.by_id(holder)
        held = call.store.large.has(holder, oid)
        readable = held and call.store.right(source, call.caller) >= Right.READ
        if held and readable and call.store.large.link(repo.id, [held]):
            return held
    return None


def _action(call: Call, repo: Repo, pointer: Pointer, what: str, number: int = 0) -> dict[str, Any]:
    """Return a signed link to one step of a transfer."""
    proof = links.sign(call.store.secret, what, repo.id, pointer.oid, pointer.size, number)
    href = f"{call.origin}/_lfs/{what}/{repo.id}/{pointer.oid}/{pointer.size}/{number}"
    return {"href": f"{href}?proof={proof}", "header": {}, "expires_in": links.LIFETIME_SECONDS}


async def put_whole(call: Call) -> Response:
    """PUT to a `basic` upload link: the whole file."""
    repo_id, pointer, _ = _checked(call, "upload")
    incoming = call.store.large.receive()
    await _fill(call, incoming, pointer.size)
    await asyncio.to_thread(call.store.large.keep, repo_id, incoming, pointer)
    return Response(status_code=200)


async def put_part(call: Call) -> Response:
    """PUT to a link for one part; the ETag is what the client names the part by at the end."""
    repo_id, pointer, number = _checked(call, "part")
    expected, whole = _part_size(call, pointer, number), call.settings.part_bytes
    parts = call.store.large.parts
    part = await asyncio.to_thread(parts.receive, repo_id, pointer, number, whole)
    await _fill(call, part, expected)
    if part.size != expected:
        part.discard()
        raise Malformed("This part is not as long as it should be.")
    etag = await asyncio.to_thread(part.finish)
    return Response(status_code=200, headers={"ETag": f'"{etag}"'})


async def complete(call: Call) -> dict[str, Any]:
    """POST to the link that ends a multipart upload: `{oid, parts}`."""
    repo_id, pointer, _ = _checked(call, "complete")
    wanted = load_json(await read_body(call.request, 4 << 20, call.settings.body_seconds))
    parts = ceil(pointer.size / call.settings.part_bytes)
    listed = wanted.get("parts") if isinstance(wanted, dict) else None
    if not isinstance(listed, list) or len(listed) != parts or wanted.get("oid") != pointer.oid:
        raise Malformed("This is not the list of the parts of that upload.")
    await asyncio.to_thread(call.store.large.assemble, repo_id, pointer, parts)
    return {"success": True}


def verify(call: Call) -> dict[str, Any]:
    """POST to a verify link: is the object here, and as long as announced?"""
    repo_id, pointer, _ = _checked(call, "verify")
    held = call.store.large.has(repo_id, pointer.oid)
    if held is None or held.size != pointer.size:
        raise EntryNotFound(pointer.oid, message="The object did not arrive.")
    return {}


def download(call: Call) -> Response:
    """GET a download link of a batch answer."""
    repo_id, pointer, _ = _checked(call, "download")
    held = call.store.large.has(repo_id, pointer.oid)
    if held is None:
        raise EntryNotFound(pointer.oid)
    path = call.store.large.path(pointer.oid)
    kind = "application/octet-stream"
    return Content(call.request, path, held.size, pointer.oid, kind, {})


async def _fill(call: Call, incoming: Incoming | Part, limit: int) -> None:
    """Let a body run into a file; whatever goes wrong, the file is given up."""
    try:
        async for chunk in chunks(call.request, limit, call.settings.body_seconds):
            await asyncio.to_thread(incoming.write, chunk)
    except BaseException:
        incoming.discard()
        raise


def _part_size(call: Call, pointer: Pointer, number: int) -> int:
    whole = call.settings.part_bytes
    return int(min(whole, pointer.size - whole * (number - 1)))


def _checked(call: Call, what: str) -> tuple[str, Pointer, int]:
    """Return repo id, pointer and part number of a link whose proof holds."""
    pieces = call.pieces
    repo_id, oid, size, number = pieces["holder"], pieces["oid"], pieces["size"], pieces["number"]
    links.check(call.store.secret, call.query("proof"), what, repo_id, oid, size, number)
    call.store.repos.by_id(repo_id)
    return repo_id, Pointer(check_sha256(oid), int(size)), int(number)


def _pointer(item: object) -> Pointer:
    if not isinstance(item, dict):
        raise Malformed("An object has an oid and a size.")
    return Pointer(check_sha256(item.get("oid")), check_size(item.get("size")))


def _upload_header(answer: dict[str, Any]) -> dict[str, Any]:
    header: dict[str, Any] = answer.get("actions", {}).get("upload", {}).get("header", {})
    return header


def listing(call: Call) -> list[dict[str, Any]]:
    """GET …/lfs-files: `list_lfs_files`, each with a name that it has or had, and where."""
    repo = call.repo(Right.WRITE)
    rows = call.store.large.listed(repo.id)
    names = large_names(call.git(repo), {row["oid"] for row in rows})
    return [
        {
            "fileOid": row["oid"],
            "oid": row["oid"],
            "filename": names.get(row["oid"], ("", None))[0],
            "pushedAt": row["created_at"],
            "ref": names.get(row["oid"], ("", None))[1],
            "size": row["size"],
        }
        for row in rows
    ]


def erase(call: Call) -> dict[str, Any]:
    """POST …/lfs-files/batch: `permanently_delete_lfs_files`."""
    repo = call.repo(Right.OWN)
    wanted = call.json().get("deletions")
    oids = wanted.get("sha") if isinstance(wanted, dict) else None
    if not isinstance(oids, list) or not isinstance(wanted, dict):
        raise Malformed("Deletions name the files by sha.")
    gone = {check_sha256(oid) for oid in oids}
    if wanted.get("rewriteHistory"):
        call.store.branches.rewrite_without(repo, gone)
    call.store.large.unlink(repo.id, gone)
    return {"success": True}


_STEP = "/_lfs/{step}/{{holder}}/{{oid}}/{{size}}/{{number}}"
ROUTES = [
    Route("GET", "/api/{kind}/{repo}/lfs-files", listing),
    Route("POST", "/api/{kind}/{repo}/lfs-files/batch", erase),
    Route("POST", "/{prefix}{repo}/info/lfs/objects/batch", batch),
    Route("PUT", _STEP.format(step="upload"), put_whole),
    Route("PUT", _STEP.format(step="part"), put_part),
    Route("POST", _STEP.format(step="complete"), complete),
    Route("POST", _STEP.format(step="verify"), verify),
    Route("GET", _STEP.format(step="download"), download),
]
