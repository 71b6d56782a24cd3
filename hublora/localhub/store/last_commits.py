"""Which commit changed each path last: one walk down the history for all paths and all pages.

A walk stops where it knows enough and is gone on with when somebody asks for more, so however many
pages a folder has, each commit is compared with its parent once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pygit2
from pygit2.enums import DeltaStatus, DiffOption

_WALKS_KEPT = 16
_MAX_PATHS_KEPT = 500_000
_OPTIONS = DiffOption.INCLUDE_TYPECHANGE | DiffOption.SKIP_BINARY_CHECK


class _Walk:
    """How far down from one commit it is known which commit changed what."""

    def __init__(self, commit: str) -> None:
        self.lock = threading.Lock()
        self.found: dict[str, str] = {}
        self.ahead: str | None = commit

    def go_on(self, raw: pygit2.Repository, wanted: Iterable[str]) -> None:
        """Go on along the first parents until `found` has everything that is wanted."""
        missing = {path for path in wanted if path not in self.found}
        while missing and self.ahead is not None:
            try:
                here = raw[self.ahead].peel(pygit2.Commit)
                changed = list(_changed(here))
            except KeyError as problem:
                raise pygit2.GitError(f"something behind {self.ahead} is missing") from problem
            for path in changed:
                self.found.setdefault(path, self.ahead)
            missing.difference_update(changed)
            self.ahead = str(here.parent_ids[0]) if here.parent_ids else None


def _changed(commit: pygit2.Commit) -> Iterator[str]:
    """Yield the files of a commit that its first parent has not so, and the folders around them.

    Of what was removed only the folders: they changed.
    """
    parent = commit.parents[0] if commit.parent_ids else None
    if parent is not None and parent.tree.id == commit.tree.id:
        return
    if parent is None:
        diff = commit.tree.diff_to_tree(flags=_OPTIONS, swap=True)
    else:
        diff = parent.tree.diff_to_tree(commit.tree, flags=_OPTIONS)
    around: set[str] = set()
    for delta in diff.deltas:
        path = delta.new_file.path
        if delta.status != DeltaStatus.DELETED:
            yield path
        while (path := path.rpartition("/")[0]) and path not in around:
            around.add(path)
            yield path


_walks: OrderedDict[tuple[Path, str], _Walk] = OrderedDict()
_lock = threading.Lock()


def last_commits(
    folder: Path, raw: pygit2.Repository, commit: str, paths: list[str]
) -> dict[str, str]:
    """Return, by path, the id of the newest commit along the first parents that changed it."""
    with _lock:
        walk = _walks.setdefault((folder, commit), _Walk(commit))
        _walks.move_to_end((folder, commit))
        while len(_walks) > _WALKS_KEPT:
            _walks.popitem(last=False)
    with walk.lock:
        walk.go_on(raw, paths)
        answers = {path: walk.found[path] for path in paths if path in walk.found}
        if len(walk.found) > _MAX_PATHS_KEPT:
            with _lock:
                _walks.pop((folder, commit), None)
    return answers
