"""Rewriting history without some large files, for `permanently_delete_lfs_files`."""

from __future__ import annotations

import pygit2
from pygit2.enums import SortMode

from . import pointers
from .writing import Stage

_TREES: int = pygit2.enums.FileMode.TREE


def without(stage: Stage, oids: set[str]) -> dict[str, tuple[str, str]]:
    """Stage the history of every ref without the files; return old and new place of each moved."""
    trees: dict[str, str | None] = {}
    commits: dict[str, str] = {}
    moves = {}
    for ref, (_, tip) in stage.repo.targets().items():
        old = stage.raw[tip].peel(pygit2.Commit)
        order = SortMode.TOPOLOGICAL | SortMode.REVERSE
        for commit in stage.raw.walk(old.id, order):
            if str(commit.id) not in commits:
                commits[str(commit.id)] = _commit(stage, commit, trees, commits, oids)
        if commits[str(old.id)] != str(old.id):
            moves[ref] = (str(old.id), commits[str(old.id)])
    return moves


def _commit(
    stage: Stage,
    commit: pygit2.Commit,
    trees: dict[str, str | None],
    commits: dict[str, str],
    oids: set[str],
) -> str:
    tree = _tree(stage, commit.tree, trees, oids)
    tree = tree or str(stage.raw.TreeBuilder().write())
    parents = [commits[str(parent)] for parent in commit.parent_ids]
    if tree == str(commit.tree.id) and parents == [str(p) for p in commit.parent_ids]:
        return str(commit.id)
    made = stage.raw.create_commit(
        None,
        commit.author,
        commit.committer,
        commit.message,
        pygit2.Oid(hex=tree),
        [pygit2.Oid(hex=parent) for parent in parents],
    )
    return str(made)


def _tree(
    stage: Stage, tree: pygit2.Tree, known: dict[str, str | None], oids: set[str]
) -> str | None:
    """Return the id of a tree without the files, None when nothing is left of it."""
    if str(tree.id) in known:
        return known[str(tree.id)]
    builder = stage.raw.TreeBuilder(tree)
    for item in tree:
        if isinstance(item, pygit2.Tree):
            inner = _tree(stage, item, known, oids)
            if inner is None:
                builder.remove(str(item.name))
            elif inner != str(item.id):
                builder.insert(str(item.name), pygit2.Oid(hex=inner), _TREES)
        elif isinstance(item, pygit2.Blob) and item.size <= pointers.MAX_POINTER_BYTES:
            pointer = pointers.decode(item.data)
            if pointer and pointer.oid in oids:
                builder.remove(str(item.name))
    known[str(tree.id)] = str(builder.write()) if len(builder) else None
    return known[str(tree.id)]
