"""Branches and tags."""

from __future__ import annotations

from typing import Any

from .. import events
from ..call import Call
from ..routing import Route
from ..store.access import Right


def refs(call: Call) -> dict[str, Any]:
    """GET …/refs: `list_repo_refs`."""
    git = call.git(call.repo())
    found = git.refs()
    groups = {
        "branches": ("refs/heads/", found.branches),
        "tags": ("refs/tags/", found.tags),
        "converts": ("refs/convert/", found.converts),
    }
    if call.flag("include_prs"):
        groups["pullRequests"] = ("refs/pr/", found.pull_requests)
    return {
        group: [
            {"name": name, "ref": prefix + name, "targetCommit": git.public(commit)}
            for name, commit in names.items()
        ]
        for group, (prefix, names) in groups.items()
    }


def create_branch(call: Call) -> dict[str, Any]:
    """POST …/branch/{name}: `create_branch`."""
    start = call.json().get("startingPoint")
    repo = call.repo(Right.WRITE)
    with events.refs(call, repo):
        call.store.branches.create(repo, call.pieces["name"], start)
    return {}


def delete_branch(call: Call) -> dict[str, Any]:
    """DELETE …/branch/{name}: `delete_branch`."""
    repo = call.repo(Right.WRITE)
    with events.refs(call, repo):
        call.store.branches.delete(repo, call.pieces["name"])
    return {}


def create_tag(call: Call) -> dict[str, Any]:
    """POST …/tag/{rev}: `create_tag`."""
    repo, wanted = call.repo(Right.WRITE), call.json()
    words, author = wanted.get("message"), str(call.caller.name)
    with events.refs(call, repo):
        call.store.branches.create_tag(repo, wanted.get("tag"), call.pieces["rev"], words, author)
    return {}


def delete_tag(call: Call) -> dict[str, Any]:
    """DELETE …/tag/{name}: `delete_tag`."""
    repo = call.repo(Right.WRITE)
    with events.refs(call, repo):
        call.store.branches.delete_tag(repo, call.pieces["rev"])
    return {}


def squash(call: Call) -> dict[str, Any]:
    """POST …/super-squash/{rev}: `super_squash_history`."""
    repo = call.repo(Right.WRITE)
    message = str(call.json().get("message") or "Super-squash")
    with events.refs(call, repo):
        call.store.branches.squash(repo, call.pieces["rev"], message, str(call.caller.name))
    return {}


def revert(call: Call) -> dict[str, Any]:
    """POST …/revert/{rev}: undo one commit of `main` by a new one. Not of the Hub's API."""
    repo = call.repo(Right.WRITE)
    with events.refs(call, repo):
        oid = call.store.branches.revert(repo, call.pieces["rev"], str(call.caller.name))
    return {"commitOid": oid, "commitUrl": f"{call.origin}/{repo.path}/commit/{oid}"}


ROUTES = [
    Route("POST", "/api/{kind}/{repo}/revert/{rev}", revert),
    Route("GET", "/api/{kind}/{repo}/refs", refs),
    Route("POST", "/api/{kind}/{repo}/branch/{name}", create_branch),
    Route("DELETE", "/api/{kind}/{repo}/branch/{name}", delete_branch),
    Route("POST", "/api/{kind}/{repo}/tag/{rev}", create_tag),
    Route("DELETE", "/api/{kind}/{repo}/tag/{rev}", delete_tag),
    Route("POST", "/api/{kind}/{repo}/super-squash/{rev}", squash),
]
