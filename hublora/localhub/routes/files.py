"""Reading files: resolve, tree, paths-info."""

from __future__ import annotations

import mimetypes
from itertools import islice
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from ..call import Call
from ..routing import Route
from ..sending import Content
from ..store.commit_facts import CommitFacts
from ..store.errors import EntryNotFound, Malformed
from ..store.git import Entry, GitRepo
from ..store.names import check_path
from ..store.repos import Repo
from .lists import paged, whole_number

TREE_PAGE = 1000
EXPANDED_TREE_PAGE = 100
MAX_PATHS = 10_000

# A browser shows these where they lie; everything else from a repo is text or a download, so
# that nobody's HTML or SVG runs with this server's name.
_SHOWN = (
    "image/png image/jpeg image/gif image/webp image/bmp video/mp4 video/webm audio/mpeg"
    " audio/wav audio/x-wav audio/ogg application/json"
)
_GUARD = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def resolve(call: Call) -> Response:
    """GET, HEAD /{repo}/resolve/{rev}/{path}: `hf_hub_download` and everything that builds on it.

    The headers are those that `get_hf_file_metadata` reads. There is no `X-Xet-Hash`: the client
    then downloads by plain HTTP.
    """
    repo, git, commit, entry = _found(call)
    path, headers = entry.path, _headers(call, commit, entry)
    source: Any
    if entry.lfs:
        headers |= {"X-Linked-Etag": f'"{entry.lfs.oid}"', "X-Linked-Size": str(entry.size)}
        source = call.store.large.path(entry.lfs.oid)
        if not call.store.large.has(repo.id, entry.lfs.oid):
            raise EntryNotFound(path, commit, f"The large file behind {path} is not here.")
    else:
        source = git.read(entry.oid)
    if call.request.method == "GET" and "range" not in call.request.headers:
        client = call.request.client
        call.store.downloads.count(repo, path, client.host if client else "")
    media = _media_type(path)
    return Content(call.request, source, entry.size, entry.etag, media, headers)


def raw(call: Call) -> Response:
    """GET, HEAD /{repo}/raw/{rev}/{path}: the blob as git has it; of a large file, its pointer."""
    _, git, commit, entry = _found(call)
    blob, headers = git.read(entry.oid), _headers(call, commit, entry)
    media = "text/plain; charset=utf-8" if entry.lfs else _media_type(entry.path)
    return Content(call.request, blob, len(blob), entry.oid, media, headers)


def _found(call: Call) -> tuple[Repo, GitRepo, str, Entry]:
    """Return the file that an address means, with the repo and the id of the commit it is in."""
    repo = call.repo()
    git = call.git(repo)
    commit = git.resolve(call.pieces["rev"])
    public = git.public(commit, call.pieces["rev"])
    path = _path_or_missing(call.pieces["path"], public)
    try:
        entry = git.entry(commit, path)
    except EntryNotFound as problem:
        problem.commit = public
        raise
    if entry.is_folder:
        raise EntryNotFound(path, public)
    return repo, git, public, entry


def _headers(call: Call, commit: str, entry: Entry) -> dict[str, str]:
    """Return the headers that every file has."""
    return {
        "X-Repo-Commit": commit,
        "Content-Disposition": _disposition(call, entry.path),
        "Cache-Control": "no-cache",
        **_GUARD,
    }


def tree(call: Call) -> Response:
    """GET …/tree/{rev}[/{path}]: `list_repo_tree`, paged by the last path seen."""
    git = call.git(call.repo())
    commit = git.resolve(call.pieces["rev"])
    path = call.pieces.get("path", "").strip("/")
    if path:
        _path_or_missing(path, commit)
    expand = call.flag("expand")
    page_size = EXPANDED_TREE_PAGE if expand else TREE_PAGE
    limit = max(1, min(whole_number(call, "limit", page_size), page_size))
    skip = whole_number(call, "cursor", 0)
    names = islice(git.names(commit, path, call.flag("recursive")), skip, skip + limit + 1)
    entries = git.look_into(names)
    following = str(skip + limit) if len(entries) > limit else None
    page = entries[:limit]
    commits = git.last_commits(commit, [entry.path for entry in page]) if expand else {}
    return paged(call, [_wire(git, entry, commits) for entry in page], following)


def paths_info(call: Call) -> list[dict[str, Any]]:
    """POST …/paths-info/{rev}: `get_paths_info`. What is not there is left out."""
    git = call.git(call.repo())
    commit = git.resolve(call.pieces["rev"])
    form = call.form()
    expand = form.get("expand", ["false"])[0].lower() == "true"
    paths = form.get("paths", [])
    if len(paths) > MAX_PATHS:
        raise Malformed(f"More than {MAX_PATHS} paths in one call.")
    entries = [entry for path in paths if (entry := _entry_or_none(git, commit, path))]
    found = [entry.path for entry in entries]
    commits = git.last_commits(commit, found) if expand else {}
    return [_wire(git, entry, commits) for entry in entries]


paths_info.only_reads = True  # type: ignore[attr-defined]


def _entry_or_none(git: GitRepo, commit: str, path: str) -> Entry | None:
    try:
        return git.entry(commit, check_path(path.rstrip("/")))
    except (EntryNotFound, Malformed):
        return None


def _path_or_missing(path: str, commit: str) -> str:
    """Return `path`; one that cannot exist is answered like one that does not."""
    try:
        return check_path(path)
    except Malformed as problem:
        raise EntryNotFound("that path", commit) from problem


def _wire(git: GitRepo, entry: Entry, commits: dict[str, CommitFacts]) -> dict[str, Any]:
    """Return an entry as `RepoFile` or `RepoFolder` reads it, with its last commit if known."""
    facts: dict[str, Any] = {
        "type": "directory" if entry.is_folder else "file",
        "oid": entry.oid,
        "size": entry.size,
        "path": entry.path,
    }
    if entry.lfs:
        facts["lfs"] = {
            "oid": entry.lfs.oid,
            "size": entry.lfs.size,
            "pointerSize": len(entry.lfs.encode()),
        }
    if last := commits.get(entry.path):
        facts["lastCommit"] = {"id": git.public(last.id), "title": last.title, "date": last.date}
    return facts


def _media_type(path: str) -> str:
    guess = mimetypes.guess_type(path, strict=False)[0] or "application/octet-stream"
    if guess in _SHOWN.split():
        return guess
    return "text/plain; charset=utf-8" if guess.startswith("text/") else "application/octet-stream"


def _disposition(call: Call, path: str) -> str:
    name = path.rpartition("/")[2]
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    way = "attachment" if call.query("download") else "inline"
    return f"{way}; filename*=UTF-8''{quote(name)}; filename=\"{plain}\";"


ROUTES = [
    Route("GET", "/{prefix}{repo}/resolve/{rev}/{path}", resolve),
    Route("GET", "/{prefix}{repo}/raw/{rev}/{path}", raw),
    Route("GET", "/api/{kind}/{repo}/resolve/{rev}/{path}", resolve),
    Route("GET", "/api/{kind}/{repo}/tree/{rev}", tree),
    Route("GET", "/api/{kind}/{repo}/tree/{rev}/{path}", tree),
    Route("POST", "/api/{kind}/{repo}/paths-info/{rev}", paths_info),
]
