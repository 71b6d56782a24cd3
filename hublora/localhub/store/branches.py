"""Branches and tags: made, removed, squashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pygit2

from hublora.filesystem import sync_folder

from . import merging, refs, rewriting
from .errors import AlreadyExists, Forbidden, RevisionNotFound
from .git import DEFAULT_BRANCH
from .names import check_new_branch
from .repos import Repo
from .writing import Stage, advance, signature, standing_at

if TYPE_CHECKING:
    from . import Store


class Branches:
    """The refs of repos, apart from the commits that move them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, repo: Repo, name: str, start: str | None) -> None:
        """Make a branch where `start` (default: main) stands."""
        git = self._store.git(repo)
        ref = f"refs/heads/{check_new_branch(name)}"
        with self._store.lock(repo):
            commit = git.resolve(start or DEFAULT_BRANCH)
            if standing_at(git, ref):
                raise AlreadyExists(f"Reference {ref} already exists.", name)
            advance(git, ref, commit, None)

    def delete(self, repo: Repo, name: str) -> None:
        """Remove a branch; `main` stays."""
        if name == DEFAULT_BRANCH:
            raise Forbidden(f"Cannot delete refs/heads/{name}: it is the default branch.")
        self._remove(repo, f"refs/heads/{check_new_branch(name)}", name)

    def create_tag(
        self, repo: Repo, name: object, revision: str, message: str | None, author: str
    ) -> None:
        """Make a tag; with a message it is an annotated one."""
        git = self._store.git(repo)
        target = git.resolve(revision)
        tag = check_new_branch(name)
        ref = f"refs/tags/{tag}"
        with self._store.lock(repo), Stage(git) as stage:
            if standing_at(git, ref):
                raise AlreadyExists(f"Reference {ref} already exists.", tag)
            if message:
                target = stage.tag(tag, target, str(message), author)
                stage.publish()
            advance(git, ref, target, None)

    def delete_tag(self, repo: Repo, name: str) -> None:
        """Remove a tag."""
        self._remove(repo, f"refs/tags/{check_new_branch(name)}", name)

    def squash(self, repo: Repo, branch: str, message: str, author: str) -> None:
        """Replace a branch's history by one commit with the same files."""
        git = self._store.git(repo)
        ref = self._store.commits.branch_ref(git, branch)
        with self._store.lock(repo), Stage(git) as stage:
            standing = git.resolve(ref)
            tree = str(git.raw[standing].peel(pygit2.Tree).id)
            commit = stage.commit(tree, [], message, signature(author))
            stage.publish()
            self._store.commits.move(repo, git, ref, commit, standing)

    def revert(self, repo: Repo, revision: str, author: str) -> str:
        """Undo one commit of `main` by a new one; return its id.

        Raises:
            Conflict: Later commits changed the same.
        """
        git, main = self._store.git(repo), f"refs/heads/{DEFAULT_BRANCH}"
        with self._store.lock(repo), Stage(git) as stage:
            undone, standing = git.commit(git.resolve(revision)), git.resolve(DEFAULT_BRANCH)
            if not undone.parents:
                raise Forbidden("The first commit cannot be undone.")
            tree = merging.revert(stage, undone.id, standing)
            text = f'Revert "{undone.title}"\n\nThis reverts commit {undone.id}.\n'
            commit = stage.commit(tree, [standing], text, signature(author))
            stage.publish()
            self._store.commits.move(repo, git, main, commit, standing)
        return commit

    def rewrite_without(self, repo: Repo, oids: set[str]) -> None:
        """Rewrite all of history as if some large files had never been committed."""
        git = self._store.git(repo)
        with self._store.lock(repo), Stage(git) as stage:
            moves = rewriting.without(stage, oids)
            stage.publish()
            for ref, (old, new) in moves.items():
                self._store.commits.move(repo, git, ref, new, old)

    def _remove(self, repo: Repo, ref: str, name: str) -> None:
        git = self._store.git(repo)
        with self._store.lock(repo):
            if standing_at(git, ref) is None:
                raise RevisionNotFound(name)
            with refs.moving(git.folder):
                git.raw.references.delete(ref)
                folder = (git.folder / ref).parent
                if folder.is_dir():
                    sync_folder(folder)
