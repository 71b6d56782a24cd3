"""Which paths large files have or had, anywhere in the history of a repo."""

from __future__ import annotations

import pygit2
from pygit2.enums import SortMode

from .git import DEFAULT_BRANCH, GitRepo


def large_names(git: GitRepo, oids: set[str]) -> dict[str, tuple[str, str]]:
    """Return, by sha256, a path of each large file and the ref in whose history it is.

    What the refs hold now comes before what they held once, and `main` before the others.
    """
    refs = git.refs()
    heads = {DEFAULT_BRANCH: git.resolve(DEFAULT_BRANCH), **refs.branches, **refs.tags}
    heads |= {f"refs/pr/{number}": commit for number, commit in refs.pull_requests.items()}
    names: dict[str, tuple[str, str]] = {}
    seen: set[pygit2.Oid] = set()
    for ref, commit in heads.items():
        for path, oid in _large_files(git, git.raw[commit].peel(pygit2.Tree), seen):
            names.setdefault(oid, (path, ref))
    for ref, commit in heads.items():
        for past in git.raw.walk(pygit2.Oid(hex=commit), SortMode.TIME):
            if names.keys() >= oids:
                return names
            for path, oid in _large_files(git, past.tree, seen):
                names.setdefault(oid, (path, ref))
    return names


def _large_files(git: GitRepo, top: pygit2.Tree, seen: set[pygit2.Oid]) -> list[tuple[str, str]]:
    """Return path and sha256 of the large files of a tree, except in folders in `seen`."""
    found, folders = [], [("", top)]
    while folders:
        path, tree = folders.pop()
        if tree.id in seen:
            continue
        seen.add(tree.id)
        for entry in git.below(tree, path):
            if entry.is_folder:
                folders.append((entry.path, git.raw[entry.oid].peel(pygit2.Tree)))
            elif entry.lfs:
                found.append((entry.path, entry.lfs.oid))
    return found
