"""Commits as the Hub makes them: staged, checked against the branch under its lock, then shown."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .disk import now
from .errors import RevisionNotFound, StaleParent
from .git import DEFAULT_BRANCH, GitRepo
from .operations import DeleteFile, DeleteFolder, Operation, PutFile, PutLarge
from .patterns import Attributes, attributes_line
from .repos import Repo
from .writing import Signature, Stage, advance, standing_at

if TYPE_CHECKING:
    from . import Store

ATTRIBUTES = ".gitattributes"
log = logging.getLogger("hublora.hub")


class Commits:
    """Moves branches, and keeps the register in step with `main`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextlib.contextmanager
    def stage(self, repo: Repo, git: GitRepo | None = None) -> Iterator[Stage]:
        """Open a place to collect the objects of a change."""
        with Stage(git or self._store.git(repo)) as stage:
            yield stage

    def apply(
        self,
        repo: Repo,
        stage: Stage,
        operations: Sequence[Operation],
        message: str,
        author: Signature,
        *,
        ref: str = f"refs/heads/{DEFAULT_BRANCH}",
        parent: str | None = None,
        skip_empty: bool = False,
    ) -> str:
        """Make one commit on a branch; return its id once it is on disk.

        Args:
            repo: The repo.
            stage: Folder with the blobs of `operations`.
            operations: Added, copied and deleted files.
            message: Title, blank line, description.
            author: Who did it.
            ref: The full name of the branch.
            parent: If given, the commit that the branch must stand at.
            skip_empty: Return the branch's commit if nothing changes.

        Raises:
            StaleParent: The branch does not stand at `parent`.
        """
        git = stage.repo
        with self._store.lock(repo):
            standing = self.check_parent(git, ref, parent)
            tree = stage.tree(standing, [*operations, *_attributes(stage, standing, operations)])
            if skip_empty and standing and tree == str(git.raw[standing].tree.id):
                return standing
            commit = stage.commit(tree, [standing] if standing else [], message, author)
            stage.publish()
            large = [each.pointer.oid for each in operations if isinstance(each, PutLarge)]
            if large:
                self._store.large.settle(large)
            self.move(repo, git, ref, commit, standing)
        return commit

    def check_parent(self, git: GitRepo, ref: str, parent: object) -> str | None:
        """Return where a branch stands, which must be at `parent` if that is given.

        Raises:
            StaleParent: It stands elsewhere.
        """
        standing = standing_at(git, ref)
        if parent is not None and standing != git.actual(str(parent)):
            raise StaleParent(
                "The branch was updated since you opened this page. Please refresh and try again.",
                f"The branch is at {standing}.",
            )
        return standing

    def move(self, repo: Repo, git: GitRepo, ref: str, new: str, expected: str | None) -> None:
        """Move a branch under the lock that the caller holds, and the register with `main`.

        Once the branch has moved, the commit is accepted, whatever its files are: where the
        register cannot follow, it stays marked as stale.
        """
        main = ref == f"refs/heads/{DEFAULT_BRANCH}"
        if main:
            self._store.repos.mark_stale(repo.id)
        advance(git, ref, new, expected)
        if main:
            try:
                self._store.reindex(repo, now())
            except Exception:
                log.exception("%s moved to %s, which cannot be indexed", repo.path, new)

    def branch_ref(self, git: GitRepo, revision: str) -> str:
        """Return the ref that a commit to `revision` moves: a branch or a pull request.

        Raises:
            RevisionNotFound: It is no branch; tags and commit ids do not move.
        """
        ref = git.ref_name(revision)
        if ref is None or ref.startswith("refs/tags/"):
            raise RevisionNotFound(revision)
        return ref


def _attributes(stage: Stage, base: str | None, operations: Sequence[Operation]) -> list[Operation]:
    """Return what writes the lines of `.gitattributes` without which git takes pointers for files.

    A file is large because of its name, which a line of the kind `*.bin` tells, or because of its
    size or bytes alone: then it gets a line of its own, as on the Hub.
    """
    content: bytes | None = stage.repo.read_file(base, ATTRIBUTES) if base else None
    for operation in operations:
        if operation.path == ATTRIBUTES and isinstance(operation, PutFile):
            content = stage.read(operation.blob)
        elif operation.path == ATTRIBUTES and isinstance(operation, DeleteFile | DeleteFolder):
            content = None
    told = Attributes((content or b"").decode("utf-8", "replace"))
    large = [each.path for each in operations if isinstance(each, PutLarge)]
    known = set((content or b"").splitlines(keepends=True))
    lines = [attributes_line(path).encode() for path in sorted(large) if not told.is_large(path)]
    lines = [line for line in lines if line not in known]
    if not lines or ATTRIBUTES in large:
        return []
    before = content + b"\n" if content and not content.endswith(b"\n") else content or b""
    return [PutFile(ATTRIBUTES, stage.blob(before + b"".join(lines)))]
