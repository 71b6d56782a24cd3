"""Writing files by the commit API, and reading history."""

from __future__ import annotations

import asyncio
import base64
import binascii
import html
import time
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from starlette.responses import Response

from .. import events
from ..bodies import ask_first, spool
from ..call import Call, load_json
from ..routing import Route
from ..store.access import Right
from ..store.commit_facts import CommitFacts
from ..store.errors import EntryNotFound, Forbidden, Malformed, TooLarge
from ..store.git import GitRepo
from ..store.names import check_path, check_sha256
from ..store.operations import DeleteFile, DeleteFolder, Operation, PutFile, PutLarge
from ..store.patterns import Attributes, Ignore
from ..store.pointers import Pointer
from ..store.repos import Repo
from ..store.writing import Stage, signature
from .lfs import take_over
from .lists import paged, whole_number

HISTORY_PAGE = 50
MAX_TITLE = 500
MAX_OPERATIONS = 100_000
MAX_PREUPLOAD = 2000
PREUPLOAD_SECONDS = 5.0


def preupload(call: Call) -> dict[str, Any]:
    """POST …/preupload/{rev}: for each file, whether it goes as a blob or as a large file."""
    repo, _ = call.take_part()
    git = call.git(repo)
    commit = git.resolve(call.pieces["rev"])
    wanted = call.json()
    files = wanted.get("files")
    if not isinstance(files, list):
        raise Malformed("A preupload lists files.")
    if len(files) > MAX_PREUPLOAD:
        raise TooLarge(f"A preupload lists at most {MAX_PREUPLOAD} files, got {len(files)}.")
    attributes = Attributes(_text(git, commit, ".gitattributes"))
    given = wanted.get("gitIgnore")
    ignore = Ignore(given if isinstance(given, str) else _text(git, commit, ".gitignore"))
    limit = call.settings.max_regular_bytes
    ends, modes = time.monotonic() + PREUPLOAD_SECONDS, []
    for file in files:
        modes.append(_mode(git, commit, file, attributes, ignore, limit))
        if time.monotonic() > ends:
            raise TooLarge("The patterns of .gitignore and .gitattributes are too many to match.")
    return {"files": modes}


def _mode(
    git: GitRepo, commit: str, file: Any, attributes: Attributes, ignore: Ignore, limit: int
) -> dict[str, Any]:
    if not isinstance(file, dict):
        raise Malformed("A file has a path, a size and a sample.")
    path, size = check_path(file.get("path")), file.get("size")
    try:
        sample = base64.b64decode(file.get("sample") or "", validate=True)
    except (TypeError, binascii.Error) as problem:
        raise Malformed("A sample is base64.") from problem
    large = attributes.is_large(path) or (isinstance(size, int) and size > limit) or b"\0" in sample
    facts = {
        "path": path,
        "uploadMode": "lfs" if large and size else "regular",
        "shouldIgnore": ignore.ignores(path),
    }
    try:
        # The client compares it with the local file and skips what has not changed.
        facts["oid"] = git.entry(commit, path).etag
    except EntryNotFound:
        pass
    return facts


async def commit(call: Call) -> dict[str, Any]:
    """POST …/commit/{rev}: NDJSON of a header and operations, made into one commit.

    Lines as `_prepare_commit_payload` of huggingface_hub writes them. Answered when on disk.
    """
    await ask_first(call, _where)
    async with spool(call, call.settings.max_commit_bytes) as body:
        return await asyncio.to_thread(_commit, call, body)


def _where(call: Call) -> tuple[Repo, str, str]:
    """Return repo, author and ref of a commit that the caller may make."""
    repo, author = call.take_part()
    ref = call.store.commits.branch_ref(call.git(repo), call.pieces["rev"])
    if not call.flag("create_pr"):
        _may_move(call, repo, ref)
    return repo, author, ref


def _commit(call: Call, body: IO[bytes]) -> dict[str, Any]:
    repo, author, ref = _where(call)
    git, new_pull_request = call.git(repo), call.flag("create_pr")
    with call.store.commits.stage(repo, git) as stage, events.refs(call, repo):
        header, operations = read_operations(call, repo, stage, body)
        text, parent = message(header), header.get("parentCommit")
        if new_pull_request:
            call.store.commits.check_parent(git, ref, parent)
            opened = call.store.discussions.open(
                repo,
                text.partition("\n")[0],
                header.get("description") or "Pull request opened with a commit",
                author,
                pull_request=True,
            )
            ref = opened.ref
            events.announce(
                call, repo, "discussion", "create", discussion=opened, comment=opened.events[0]
            )
        oid = call.store.commits.apply(
            repo, stage, operations, text, signature(author), ref=ref, parent=parent
        )
    pull_request = call.store.discussions.by_ref(repo, ref)
    if pull_request is not None:
        title = text.partition("\n")[0]
        call.store.discussions.note_commit(repo, pull_request.number, oid, title, author)
    return {
        "success": True,
        "commitUrl": f"{call.origin}/{repo.path}/commit/{oid}",
        "commitOid": oid,
        "hookOutput": "",
        "pullRequestUrl": f"{call.origin}/{repo.path}/discussions/{pull_request.number}"
        if pull_request
        else None,
    }


def _may_move(call: Call, repo: Repo, ref: str) -> None:
    """Let the branch move: a pull request's by its author too, as long as it is open.

    Raises:
        Forbidden: It is somebody else's, or has ended.
    """
    pull_request = call.store.discussions.by_ref(repo, ref)
    if pull_request is None or pull_request.author != call.caller.name:
        call.repo(Right.WRITE)
    if pull_request is not None and not pull_request.is_open:
        raise Forbidden("This pull request has ended.")


def message(header: dict[str, Any]) -> str:
    """Return the commit message of a header: title, blank line, description."""
    title = str(header.get("summary") or "").strip()
    if not title:
        raise Malformed("A commit needs a summary.")
    text = str(header.get("description") or "").strip()
    return f"{title[:MAX_TITLE]}\n\n{text}\n" if text else f"{title[:MAX_TITLE]}\n"


def read_operations(
    call: Call, repo: Repo, stage: Stage, body: IO[bytes]
) -> tuple[dict[str, Any], list[Operation]]:
    """Return the header and the operations of a commit; contents are staged as they are read."""
    header: dict[str, Any] | None = None
    operations: list[Operation] = []
    for key, value in _lines(body, call.settings.max_regular_bytes * 4 // 3 + 65_536):
        if key == "header":
            header = value
        elif key in _READERS:
            operations.append(_READERS[key](call, repo, stage, value))
        else:
            raise Malformed(f"Unknown operation: {key[:40]}")
        if len(operations) > MAX_OPERATIONS:
            raise TooLarge(f"More than {MAX_OPERATIONS} operations in one commit.")
    if header is None:
        raise Malformed("A commit begins with a header.")
    return header, operations


def _lines(body: IO[bytes], limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    while line := body.readline(limit + 1):
        if len(line) > limit:
            raise TooLarge("A file is too large for the commit itself: upload it as a large file.")
        if not line.strip():
            continue
        item = load_json(line)
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict):
            raise Malformed("A line of a commit is an object with key and value.")
        yield str(item.get("key")), item["value"]


def _file(call: Call, repo: Repo, stage: Stage, value: dict[str, Any]) -> Operation:
    content = value.get("content")
    if not isinstance(content, str) or value.get("encoding", "utf-8") not in ("base64", "utf-8"):
        raise Malformed("A file has content, as base64 or utf-8.")
    if value.get("encoding") == "base64":
        try:
            data = base64.b64decode(content, validate=True)
        except binascii.Error as problem:
            raise Malformed("A file's content is not base64.") from problem
    else:
        data = content.encode("utf-8", "replace")
    return PutFile(check_path(value.get("path")), stage.blob(data))


def _large_file(call: Call, repo: Repo, stage: Stage, value: dict[str, Any]) -> Operation:
    path, oid = check_path(value.get("path")), check_sha256(value.get("oid"))
    held = call.store.large.has(repo.id, oid) or take_over(call, repo, oid)
    if held is None:
        raise Malformed(f"LFS pointer of {path} points to a file that does not exist: {oid}")
    return PutLarge(path, Pointer(oid, held.size))


def _deleted_file(call: Call, repo: Repo, stage: Stage, value: dict[str, Any]) -> Operation:
    return DeleteFile(check_path(value.get("path")))


def _deleted_folder(call: Call, repo: Repo, stage: Stage, value: dict[str, Any]) -> Operation:
    return DeleteFolder(check_path(str(value.get("path", "")).rstrip("/")))


_READERS = {
    "file": _file,
    "lfsFile": _large_file,
    "deletedFile": _deleted_file,
    "deletedFolder": _deleted_folder,
}


def history(call: Call) -> Response:
    """GET …/commits/{rev}: `list_repo_commits`."""
    git = call.git(call.repo())
    newest = git.resolve(call.pieces["rev"])
    limit = max(1, min(whole_number(call, "limit", HISTORY_PAGE), 1000))
    skip = whole_number(call, "cursor", 0)
    found = list(islice(git.history(newest), skip, skip + limit + 1))
    formatted = "formatted" in call.queries("expand", "expand[]")
    following = str(skip + limit) if len(found) > limit else None
    answer = paged(call, [_wire(git, facts, formatted) for facts in found[:limit]], following)
    answer.headers["X-Total-Count"] = str(git.count(newest))
    return answer


def _wire(git: GitRepo, facts: CommitFacts, formatted: bool) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "id": git.public(facts.id),
        "title": facts.title,
        "message": facts.message,
        "authors": [{"user": facts.author, "avatar": ""}],
        "date": facts.date,
    }
    if formatted:
        wire["formatted"] = {
            "title": html.escape(facts.title),
            "message": html.escape(facts.message),
        }
    return wire


def _text(git: GitRepo, commit: str, path: str) -> str:
    return (git.read_file(commit, path, 1 << 20) or b"").decode("utf-8", "replace")


ROUTES = [
    Route("POST", "/api/{kind}/{repo}/preupload/{rev}", preupload),
    Route("POST", "/api/{kind}/{repo}/commit/{rev}", commit),
    Route("GET", "/api/{kind}/{repo}/commits/{rev}", history),
]
