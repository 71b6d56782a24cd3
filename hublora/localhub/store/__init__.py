"""The embedded Hub without HTTP: git repositories, large files, and who may do what.

`Store(folder)` is everything; the server, the command line and tests use the same one, also at the
same time from several processes.

    DATA/hub.sqlite       people, tokens (hashed), the register of repos, discussions
    DATA/repos/<id>.git   bare repositories; ids are random, names are only rows
    DATA/lfs/ab/<oid>     large files by sha256
    DATA/uploads/         what is still on its way in
    DATA/locks/           one lock a repo, against other threads and processes
    DATA/secret           signs the links that uploads go to
    DATA/owner-token      the first user's token, readable by its owner alone
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from hublora.filesystem import sync_folder, write_atomically

from . import access, cards, packing, refs
from .aliases import Aliases
from .backup import check_finished
from .branches import Branches
from .collections import Collections
from .commits import Commits
from .database import Database
from .discussions import Discussions
from .disk import exclusive, exclusive_if_free, make_folder, make_private
from .downloads import Downloads
from .errors import DamagedRepo
from .gates import Gates
from .git import DEFAULT_BRANCH, GitRepo
from .indexing import read_entry
from .large import LargeFiles
from .operations import PutFile
from .patterns import default_attributes
from .people import NOBODY, Caller, People
from .repos import Repo, Repos
from .webhooks import Webhooks
from .writing import Stage, advance, signature

log = logging.getLogger("hublora.hub")
OWNER_TOKEN = "owner-token"


class Store:
    """Opens a data folder, making it when it is empty."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).absolute()
        make_private(self.folder)
        check_finished(self.folder)
        for name in ("repos", "locks", "trash"):
            make_folder(self.folder / name)
        with exclusive(self.folder / "locks" / "opening"):
            self.database = Database(self.folder / "hub.sqlite")
        self.people = People(self.database)
        self.repos = Repos(self.database)
        self.large = LargeFiles(self.database, self.folder)
        self.aliases = Aliases(self.database)
        self.commits = Commits(self)
        self.branches = Branches(self)
        self.downloads = Downloads(self.repos)
        self.discussions = Discussions(self)
        self.collections = Collections(self.database)
        self.gates = Gates(self.database)
        self.webhooks = Webhooks(self.database)

    @cached_property
    def secret(self) -> bytes:
        """The key that upload links are signed with; made once."""
        path = self.folder / "secret"
        with exclusive(self.folder / "locks" / "opening"):
            if not path.exists():
                write_atomically(path, secrets.token_bytes(32), mode=0o600)
        return path.read_bytes()

    def first_user(self, name: str) -> str | None:
        """Make the first user with a write token if nobody is here; return the owner's token."""
        path = self.folder / OWNER_TOKEN
        with exclusive(self.folder / "locks" / "first-user"):
            if not self.people.everyone():
                self.people.add(name)
            if not self.people.tokens():
                owner = next(u["name"] for u in self.people.everyone() if u["kind"] == "user")
                token = self.people.create_token(owner, "write", "first")
                write_atomically(path, token.encode() + b"\n", mode=0o600)
        return path.read_text().strip() if path.exists() else None

    # Repos

    def git(self, repo: Repo) -> GitRepo:
        """Open the git repository of a repo.

        Raises:
            DamagedRepo: It is set aside.
        """
        if repo.damage:
            raise DamagedRepo(repo.name, repo.damage)
        return GitRepo(self.folder / "repos" / f"{repo.id}.git", self.aliases.of(repo.id))

    def lock(self, repo: Repo) -> AbstractContextManager[None]:
        """Hold a repo's branches still."""
        return exclusive(self.folder / "locks" / repo.id)

    def create_repo(
        self,
        kind: str,
        owner: str,
        name: str,
        *,
        private: bool = False,
        sdk: str | None = None,
        author: str | None = None,
        time: int | None = None,
    ) -> Repo:
        """Make a repo with its first commit, as the Hub does; at `time`, if it is given.

        The register comes last: a name that exists has a whole repository behind it.
        """
        repo_id = self.repos.check_free(kind, owner, name, sdk)
        with self._new_folder(repo_id) as folder:
            with Stage(GitRepo.create(folder)) as stage:
                first = {".gitattributes": default_attributes(kind)}
                if sdk is not None:
                    first["README.md"] = cards.space_readme(name, sdk)
                files = [PutFile(path, stage.blob(content)) for path, content in first.items()]
                tree = stage.tree(None, files)
                commit = stage.commit(tree, [], "initial commit", signature(author or owner, time))
                stage.publish()
                advance(stage.repo, f"refs/heads/{DEFAULT_BRANCH}", commit, None)
            sync_folder(folder.parent)
            repo = self.repos.create(repo_id, kind, owner, name, private, sdk)
        self.reindex(repo, repo.created_at)
        return self.repos.by_id(repo.id)

    @contextlib.contextmanager
    def _new_folder(self, repo_id: str) -> Iterator[Path]:
        """Hold the lock of a repo that is being made: `recover` removes folders without a row."""
        folder = self.folder / "repos" / f"{repo_id}.git"
        with exclusive(self.folder / "locks" / repo_id):
            try:
                yield folder
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def duplicate_repo(
        self, source: Repo, owner: str, name: str, *, private: bool, sdk: str | None
    ) -> Repo:
        """Make a repo with all the history and files of another one."""
        repo_id = self.repos.check_free(source.kind, owner, name, sdk)
        with self._new_folder(repo_id) as folder:
            origin = self.folder / "repos" / f"{source.id}.git"
            proposals = (str(origin / "refs"), ["pr"])
            with self.lock(source):
                shutil.copytree(
                    origin,
                    folder,
                    ignore=lambda place, _: proposals[1] if place == proposals[0] else [],
                )
            os.sync()
            repo = self.repos.create(repo_id, source.kind, owner, name, private, sdk, source)
        self.reindex(repo, repo.created_at)
        return self.repos.by_id(repo.id)

    def delete_repo(self, repo: Repo) -> None:
        """Forget a repo and free its folder."""
        folder = self.folder / "repos" / f"{repo.id}.git"
        trash = self.folder / "trash" / repo.id
        with self.lock(repo):
            self.repos.forget(repo)
            if folder.exists():
                folder.rename(trash)
                sync_folder(folder.parent)
        self._empty_trash()

    def right(self, repo: Repo, caller: Caller) -> access.Right:
        """Return the most that the caller may do to a repo."""
        return access.right_to(repo, caller, self.gates.consent(repo, caller))

    def reindex(self, repo: Repo, moment: str | None = None) -> None:
        """Bring what lists know of a repo in step with its newest commit, made at `moment`."""
        entry = read_entry(self.git(repo), self.large, repo.kind, moment)
        self.repos.index(repo.id, entry)

    def collect_garbage(self) -> tuple[int, int]:
        """Free what nobody uses; return how many files and bytes went.

        Waits for a backup that is under way: that one may still need them.
        """
        self._empty_trash()
        with self.housekeeping():
            return self.large.sweep()

    def housekeeping(self) -> AbstractContextManager[None]:
        """Hold what only one may do at a time: to free things, or to copy all of them."""
        return exclusive(self.folder / "locks" / "housekeeping")

    def _empty_trash(self) -> None:
        """Remove deleted repos, unless a backup is under way, which may still copy from them."""
        with exclusive_if_free(self.folder / "locks" / "housekeeping") as free:
            if free:
                for path in (self.folder / "trash").iterdir():
                    shutil.rmtree(path, ignore_errors=True)

    def recover(self) -> None:
        """Finish what a crash interrupted; called once by a starting server."""
        self.large.clean_uploads()
        for path in self.folder.glob("repos/*.git"):
            try:
                self._mend(path.stem, path)
            except OSError as problem:
                log.error("%s cannot be looked after: %s", path, problem)
        self._empty_trash()
        stale = {repo.id for repo in self.repos.stale()}
        for repo in self.repos.all():
            self._check(repo, repo.id in stale)

    def _check(self, repo: Repo, stale: bool) -> None:
        """Look into a repo; one that cannot be read is set aside, so that the others are served."""
        sound = replace(repo, damage="")
        try:
            with self.lock(repo):
                if stale or repo.damage:
                    self.reindex(sound)
                else:
                    self.git(sound).check()
            damage = ""
        except Exception as problem:  # whatever is on the disk, the Hub starts
            damage = f"{type(problem).__name__}: {problem}"[:500]
            log.error(
                "%s is set aside, its folder is repos/%s.git: %s. Restore that folder from a"
                " backup and start the Hub again; all other repos are served.",
                repo.path,
                repo.id,
                damage,
            )
        if damage != repo.damage:
            self.repos.set_aside(repo.id, damage)

    def _mend(self, repo_id: str, folder: Path) -> None:
        """Remove a repo's folder that has no row, or what does not belong into one that has."""
        with exclusive(self.folder / "locks" / repo_id):
            if self.repos.knows(repo_id):
                refs.sweep(folder)
                packing.sweep(folder)
            else:
                folder.rename(self.folder / "trash" / repo_id)


__all__ = ["NOBODY", "OWNER_TOKEN", "Store", "signature"]
