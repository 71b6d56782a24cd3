"""Pages about what is in a repo: folders, files, history, one commit, two galleries compared."""

from __future__ import annotations

from itertools import islice
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from .. import gallery
from ..addresses import file_address
from ..call import Call
from ..changes import changes, text_of
from ..facts import View
from ..routing import Route
from ..store.errors import EntryNotFound, Malformed
from ..store.names import check_path
from ..store.repos import Repo
from ..store.tensors import read_header
from .lists import whole_number
from .pages import page, writes

FILES_SHOWN = 500
COMMITS_SHOWN = 50
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")


def files_page(call: Call) -> Response:
    """GET /{repo}/tree/{rev}[/{path}]: a folder."""
    repo = call.repo()
    git = call.git(repo)
    revision, path = call.pieces["rev"], call.pieces.get("path", "").strip("/")
    commit = git.resolve(revision)
    if path:
        _check(path, commit)
    entries = git.look_into(islice(git.names(commit, path), FILES_SHOWN + 1))
    shown = sorted(entries[:FILES_SHOWN], key=lambda entry: (not entry.is_folder, entry.path))
    return page(
        call,
        "files",
        **_place(repo, revision, path),
        entries=shown,
        last=git.last_commits(commit, [entry.path for entry in shown[:200]]),
        more=len(entries) > FILES_SHOWN,
        branches=list(git.refs().branches),
    )


def file_page(call: Call) -> Response:
    """GET /{repo}/blob/{rev}/{path}: one file, as far as it can be shown."""
    repo = call.repo()
    git = call.git(repo)
    revision, path = call.pieces["rev"], call.pieces["path"]
    commit = git.resolve(revision)
    entry = git.entry(commit, _check(path, commit))
    if entry.is_folder:
        return RedirectResponse(f"/{repo.path}/tree/{quote(revision, safe='')}/{quote(path)}", 307)
    tensors = None
    if entry.lfs and path.endswith(".safetensors"):
        tensors = read_header(call.store.large.path(entry.lfs.oid))
    return page(
        call,
        "file",
        **_place(repo, revision, path),
        entry=entry,
        address=file_address(repo.path, commit, path),
        image=path.lower().endswith(_IMAGES),
        text=text_of(git, entry),
        tensors=tensors,
    )


def history_page(call: Call) -> Response:
    """GET /{repo}/commits/{rev}: the history of a branch."""
    repo = call.repo()
    git = call.git(repo)
    revision = call.pieces["rev"]
    skip = whole_number(call, "cursor", 0)
    history = git.history(git.resolve(revision))
    found = list(islice(history, skip, skip + COMMITS_SHOWN + 1))
    following = f"?cursor={skip + COMMITS_SHOWN}" if len(found) > COMMITS_SHOWN else None
    return page(
        call,
        "history",
        repo=repo,
        tab="history",
        revision=revision,
        commits=found[:COMMITS_SHOWN],
        following=following,
    )


def commit_page(call: Call) -> Response:
    """GET /{repo}/commit/{rev}: what one commit changed."""
    repo = call.repo()
    git = call.git(repo)
    commit = git.resolve(call.pieces["rev"])
    facts = git.commit(commit)
    parent = facts.parents[0] if facts.parents else None
    return page(
        call,
        "commit",
        repo=repo,
        tab="history",
        commit=facts,
        changes=changes(git, parent, commit),
        parent=parent,
        writes=writes(call, repo),
    )


def compare_page(call: Call) -> Response:
    """GET /{repo}/compare/{a}..{b}: the galleries of two revisions, image beside image."""
    repo = call.repo()
    old, dots, new = call.pieces["rev"].partition("..")
    if not dots:
        raise Malformed("Two revisions are compared: old..new")
    views = [View(call.store, repo, revision) for revision in (old, new)]
    sides = [
        {image.path: image for image in gallery.images(view.card, repo.name, call.origin)}
        for view in views
    ]
    rows = []
    for path in dict.fromkeys([*sides[0], *sides[1]]):
        pair = [
            {"prompt": side[path].prompt, "address": file_address(repo.path, view.sha, path)}
            if path in side
            else None
            for side, view in zip(sides, views, strict=True)
        ]
        rows.append({"path": path, "pair": pair})
    git = views[0].git
    return page(
        call,
        "compare",
        repo=repo,
        tab="history",
        old=old,
        new=new,
        rows=rows,
        changes=changes(git, views[0].sha, views[1].sha),
    )


def _check(path: str, commit: str) -> str:
    try:
        return check_path(path)
    except Malformed as problem:
        raise EntryNotFound("that path", commit) from problem


def _place(repo: Repo, revision: str, path: str) -> dict[str, Any]:
    """Return where in the files of a repo a page is, as its templates need it."""
    return {
        "repo": repo,
        "tab": "files",
        "revision": revision,
        "rev": quote(revision, safe=""),
        "path": path,
        "crumbs": _crumbs(path),
    }


def _crumbs(path: str) -> list[tuple[str, str]]:
    """Return name and path of each folder on the way to `path`."""
    names = path.split("/") if path else []
    return [(name, "/".join(names[: i + 1])) for i, name in enumerate(names)]


ROUTES = [
    Route("GET", "/{prefix}{repo}/tree/{rev}", files_page),
    Route("GET", "/{prefix}{repo}/tree/{rev}/{path}", files_page),
    Route("GET", "/{prefix}{repo}/blob/{rev}/{path}", file_page),
    Route("GET", "/{prefix}{repo}/commits/{rev}", history_page),
    Route("GET", "/{prefix}{repo}/commit/{rev}", commit_page),
    Route("GET", "/{prefix}{repo}/compare/{rev}", compare_page),
]
