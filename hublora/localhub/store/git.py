"""Reading a bare git repository: revisions, trees, blobs, history. Knows no people and no HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType, SortMode

from . import pointers, refs
from .blobs import blob_facts
from .commit_facts import CommitFacts, commit_facts
from .errors import EntryNotFound, Malformed, RevisionNotFound
from .last_commits import last_commits
from .names import check_revision
from .trees import Name, walk

DEFAULT_BRANCH = "main"
_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_FILE_MODES = frozenset({0o100644, 0o100755})

# The data folder may have been copied here by another user.
pygit2.settings.owner_validation = False
# However many repositories are read at once: no more open packs than this.
pygit2.settings.mwindow_file_limit = 256
# A history's walk meets each tree twice; that of a folder of 20,000 files has 1 MB.
pygit2.settings.cache_object_limit(ObjectType.TREE, 1 << 20)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder of a tree; `lfs` tells the large file that a file stands for."""

    path: str
    oid: str
    is_folder: bool
    size: int = 0
    lfs: pointers.Pointer | None = None

    @property
    def etag(self) -> str:
        """What changes exactly when the content does: sha256 of a large file, else git's sha1."""
        return self.lfs.oid if self.lfs else self.oid


@dataclass(frozen=True)
class Refs:
    """All refs of a repo with the commit each points to, in the four groups of the Hub."""

    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    converts: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)


class GitRepo:
    """One bare repository, opened for one task: not to be shared between threads."""

    def __init__(self, folder: Path, aliases: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        # Commits by the ids that they have upstream: see `aliases`.
        self._aliases = dict(aliases or {})
        self.raw = pygit2.Repository(str(folder), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)

    def __del__(self) -> None:
        """Close the packs now: pygit2's own objects refer to each other and wait for the gc."""
        raw = getattr(self, "raw", None)
        if raw is not None:
            raw.free()

    @classmethod
    def create(cls, folder: Path) -> GitRepo:
        """Make an empty bare repository whose HEAD is `main`."""
        pygit2.init_repository(str(folder), bare=True, initial_head=DEFAULT_BRANCH)
        return cls(folder)

    def check(self) -> None:
        """Read the newest commit of `main` and its folder; raises whatever prevents it."""
        newest = self.resolve(DEFAULT_BRANCH)
        self.commit(newest)
        next(self.names(newest), None)

    def object(self, oid: str) -> pygit2.Object:
        """Return what is stored under a full id that something else refers to.

        Raises:
            pygit2.GitError: It is missing.
        """
        try:
            return self.raw[oid]
        except KeyError as problem:
            raise pygit2.GitError(f"the object {oid} is missing") from problem

    # Revisions

    def ref_name(self, revision: str) -> str | None:
        """Return the full name of the ref that `revision` means, or None for a commit id.

        Raises:
            RevisionNotFound: It cannot be the name of anything.
        """
        try:
            check_revision(revision)
        except Malformed as problem:
            raise RevisionNotFound(revision) from problem
        if revision == "HEAD":
            return _HEADS + DEFAULT_BRANCH
        places = (
            (revision,) if revision.startswith("refs/") else (_HEADS + revision, _TAGS + revision)
        )
        return next((place for place in places if self.target(place)), None)

    def target(self, ref: str) -> tuple[str, str] | None:
        """Return the object that a full ref name leads to and its commit, None if to no commit."""
        try:
            found = self.raw.references.get(ref)
            return (str(found.target), str(found.peel(pygit2.Commit).id)) if found else None
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def targets(self) -> dict[str, tuple[str, str]]:
        """Return `target` of every ref by its full name, sorted."""
        found = {name: self.target(name) for name in refs.values(self.folder)}
        return {name: target for name, target in found.items() if target}

    def resolve(self, revision: str) -> str:
        """Return the commit id that a branch, tag, ref or (abbreviated) commit id means.

        Raises:
            RevisionNotFound: It means none.
        """
        name = self.ref_name(revision)
        target = self.target(name) if name else None
        if target:
            return target[1]
        revision = self.actual(revision)
        commit_like = 7 <= len(revision) <= 40 and set(revision) <= set("0123456789abcdef")
        if commit_like:
            try:
                found = self.raw[revision]
            except (KeyError, ValueError) as problem:
                raise RevisionNotFound(revision) from problem
            if isinstance(found, pygit2.Commit):
                return str(found.id)
        raise RevisionNotFound(revision)

    def refs(self) -> Refs:
        """Return all refs with their commits."""
        found = Refs()
        groups = {
            _HEADS: found.branches,
            _TAGS: found.tags,
            "refs/convert/": found.converts,
            "refs/pr/": found.pull_requests,
        }
        for name, (_, commit) in self.targets().items():
            for prefix, group in groups.items():
                if name.startswith(prefix):
                    group[name.removeprefix(prefix)] = commit
        return found

    def actual(self, commit: str) -> str:
        """Return the id of the commit here that has `commit` as its id upstream, or just that."""
        here = self._aliases.get(commit)
        return here if here and commit not in self.raw else commit

    def public(self, commit: str, asked: str = "") -> str:
        """Return the id by which the world knows a commit, when it was asked for by `asked`."""
        if asked in self._aliases and self.actual(asked) == commit:
            return asked
        # With the upstream commit itself at hand there is nothing to stand for it.
        names = (name for name, here in reversed(self._aliases.items()) if here == commit)
        return next((name for name in names if name not in self.raw), commit)

    # Trees and blobs

    def entry(self, commit: str, path: str) -> Entry:
        """Return the file or folder at `path`.

        Raises:
            EntryNotFound: There is none.
        """
        found = self._object_at(commit, path)
        return self._entry(path, str(found.id), isinstance(found, pygit2.Tree))

    def entries(self, commit: str, path: str = "", recursive: bool = False) -> Iterator[Entry]:
        """Yield what is below a folder in git's order, folders before what they hold."""
        for name in self.names(commit, path, recursive):
            yield self._entry(*name)

    def look_into(self, names: Iterable[Name]) -> list[Entry]:
        """Return the entries of some of the `names`."""
        return [self._entry(*name) for name in names]

    def names(self, commit: str, path: str = "", recursive: bool = False) -> Iterator[Name]:
        """Yield paths below a folder without looking into the files: what paging skips over."""
        top = self._object_at(commit, path)
        if not isinstance(top, pygit2.Tree):
            raise EntryNotFound(path, commit)
        yield from walk(self.raw, str(top.id), f"{path}/" if path else "", recursive)

    def files(self, commit: str) -> list[Entry]:
        """Return every file of a commit."""
        return [entry for entry in self.entries(commit, recursive=True) if not entry.is_folder]

    def below(self, tree: pygit2.Tree, path: str) -> list[Entry]:
        """Return the entries of one folder, given its tree."""
        return self.look_into(walk(self.raw, str(tree.id), f"{path}/" if path else "", False))

    def read(self, oid: str) -> bytes:
        """Return the content of a blob."""
        try:
            kind, content = self.raw.odb.read(pygit2.Oid(hex=oid))
        except KeyError as problem:
            raise pygit2.GitError(f"the file {oid} is missing") from problem
        if kind != ObjectType.BLOB:
            raise EntryNotFound(oid)
        return bytes(content)

    def read_file(self, commit: str, path: str, limit: int | None = None) -> bytes | None:
        """Return the content of a small file, or None when it is not there, large, or a folder."""
        try:
            entry = self.entry(commit, path)
        except EntryNotFound:
            return None
        if entry.is_folder or entry.lfs or (limit is not None and entry.size > limit):
            return None
        return self.read(entry.oid)

    def _object_at(self, commit: str, path: str) -> pygit2.Object:
        tree = self.object(commit).peel(pygit2.Tree)
        if not path:
            return tree
        try:
            found: pygit2.Object = tree / path
        except KeyError as problem:
            raise EntryNotFound(path, commit) from problem
        if not _is_plain(found):
            raise EntryNotFound(path, commit)
        return found

    def _entry(self, path: str, oid: str, is_folder: bool) -> Entry:
        if is_folder:
            return Entry(path, oid, is_folder=True)
        size, lfs = blob_facts(self.raw, oid)
        return Entry(path, oid, is_folder=False, size=lfs.size if lfs else size, lfs=lfs)

    # History

    def count(self, commit: str) -> int:
        """Return how many commits lead to a commit, itself included."""
        return _count(self, commit)

    def commit(self, commit: str) -> CommitFacts:
        """Return the facts of one commit."""
        return commit_facts(self.object(commit).peel(pygit2.Commit))

    def history(self, commit: str) -> Iterator[CommitFacts]:
        """Yield a commit and its ancestors, newest first."""
        order = SortMode.TOPOLOGICAL | SortMode.TIME
        for found in self.raw.walk(pygit2.Oid(hex=commit), order):
            yield commit_facts(found)

    def last_commits(self, commit: str, paths: list[str]) -> dict[str, CommitFacts]:
        """Return, for each path, the newest commit along the first parents that changed it."""
        self.object(commit)
        found = last_commits(self.folder, self.raw, commit, paths)
        facts = {oid: self.commit(oid) for oid in set(found.values())}
        return {path: facts[oid] for path, oid in found.items()}


def _is_plain(item: pygit2.Object) -> bool:
    """Tell files and folders from symbolic links and submodules, which are not followed."""
    return item.type == ObjectType.TREE or int(item.filemode) in _FILE_MODES


_COUNTS: dict[str, int] = {}
_MAX_COUNTS = 10_000


def _count(repo: GitRepo, commit: str) -> int:
    """Count a history once: what leads to a commit never changes."""
    if commit not in _COUNTS:
        if len(_COUNTS) >= _MAX_COUNTS:
            _COUNTS.clear()
        _COUNTS[commit] = sum(1 for _ in repo.raw.walk(pygit2.Oid(hex=commit)))
    return _COUNTS[commit]
