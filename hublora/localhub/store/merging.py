"""Three-way merges and diffs of commits, by libgit2."""

from __future__ import annotations

import pygit2

from .errors import Conflict
from .git import GitRepo
from .writing import Stage

MAX_DIFF_CHARACTERS = 2_000_000


def conflicts(git: GitRepo, ours: str, theirs: str) -> list[str]:
    """Return the paths that both sides changed differently."""
    return _conflicting(git.raw.merge_commits(pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs)))


def merge(stage: Stage, ours: str, theirs: str) -> str:
    """Stage the tree of both sides together; return its id.

    Raises:
        Conflict: Both changed the same files; the message names them.
    """
    index = stage.raw.merge_commits(pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs))
    clashing = _conflicting(index)
    if clashing:
        raise Conflict(f"Both sides changed {', '.join(clashing[:20])}.")
    return str(index.write_tree(stage.raw))


def revert(stage: Stage, commit: str, ours: str) -> str:
    """Stage the tree of `ours` without what `commit` changed; return its id.

    A merge is undone as seen from the branch that it was made on, its first parent.

    Raises:
        Conflict: Later commits changed the same lines, or nothing of it is left.
    """
    undone, current = (stage.raw[oid].peel(pygit2.Commit) for oid in (commit, ours))
    mainline = 1 if len(undone.parents) > 1 else 0
    clashing = _conflicting(index := stage.raw.revert_commit(undone, current, mainline))
    if clashing:
        raise Conflict(f"Later commits changed {', '.join(clashing[:20])} too.")
    tree = index.write_tree(stage.raw)
    if tree == current.tree.id:
        raise Conflict("Nothing of this commit is left to undo.")
    return str(tree)


def diff_text(git: GitRepo, old: str, new: str) -> str:
    """Return what `new` changed since it left `old`, as `git diff old...new` writes it."""
    base = git.raw.merge_base(pygit2.Oid(hex=old), pygit2.Oid(hex=new))
    before, after = (git.raw[oid].peel(pygit2.Tree) for oid in (base or old, new))
    patches, total = [], 0
    for patch in before.diff_to_tree(after):
        text = patch.data.decode("utf-8", "replace") if patch is not None else ""
        total += len(text)
        if total > MAX_DIFF_CHARACTERS:
            break
        patches.append(text)
    return "".join(patches)


def _conflicting(index: pygit2.Index) -> list[str]:
    if index.conflicts is None:
        return []
    return sorted({side.path for triple in index.conflicts for side in triple if side})
