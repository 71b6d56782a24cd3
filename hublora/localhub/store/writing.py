"""Making commits: operations on a tree, written durably, the branch moved last.

The objects of a change are staged in a folder of their own and from there go into one pack, so a
commit costs the same few fsyncs whether it has one file or 5,000, and one that is given up halfway
leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from . import refs
from .errors import Malformed, StaleParent
from .git import GitRepo
from .operations import Operation, PutFile, PutLarge, change
from .packing import install, join_packs


@dataclass(frozen=True)
class Signature:
    """Who made a commit, and when if it is not now: in seconds since 1970."""

    name: str
    email: str
    time: int | None = None

    def now(self) -> pygit2.Signature:
        """Return git's own form, with the present time unless another one is given."""
        if self.time is None:
            return pygit2.Signature(self.name, self.email)
        return pygit2.Signature(self.name, self.email, self.time, 0)


def signature(user: str, time: int | None = None) -> Signature:
    """Return how a user signs commits; no address of anyone is kept."""
    return Signature(user, f"{user}@users.noreply.hub", time)


class Stage:
    """Collects the objects of one change apart from the repository until `publish`."""

    def __init__(self, repo: GitRepo) -> None:
        self.repo = repo
        uploads = repo.folder.parents[1] / "uploads"
        self._folder = Path(tempfile.mkdtemp(prefix="stage-", dir=uploads))
        self._lock = (self._folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._staged = pygit2.Odb()
        self._staged.add_backend(
            pygit2.OdbBackendLoose(str(self._folder), 1, False, 0o755, 0o644), 10
        )
        objects = str(repo.folder / "objects")
        self._staged.add_backend(pygit2.OdbBackendPack(objects), 2)
        self._staged.add_backend(pygit2.OdbBackendLoose(objects, -1, False), 1)
        self.raw = pygit2.Repository(str(repo.folder))
        self.raw.set_odb(self._staged)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.free()
        self._lock.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def blob(self, content: bytes) -> str:
        """Stage a file's content; return its id."""
        return str(self.raw.create_blob(content))

    def read(self, blob: str) -> bytes:
        """Return the content of a blob, staged or not."""
        return bytes(self._staged.read(pygit2.Oid(hex=blob))[1])

    def tree(self, base: str | None, operations: Iterable[Operation]) -> str:
        """Stage the tree that `operations` make of the commit `base`; return its id.

        Raises:
            EntryNotFound: Something to delete is not there.
            Malformed: A path cannot be one, or something is in its way.
        """
        index = pygit2.Index()
        if base is not None:
            index.read_tree(self.raw[base].peel(pygit2.Tree))
        change(index, (self._as_blob(operation) for operation in operations), base)
        return str(index.write_tree(self.raw))

    def _as_blob(self, operation: Operation) -> Operation:
        if isinstance(operation, PutLarge):
            return PutFile(operation.path, self.blob(operation.pointer.encode()))
        return operation

    def commit(self, tree: str, parents: Sequence[str], message: str, author: Signature) -> str:
        """Stage a commit object; return its id. No branch moves yet."""
        who = author.now()
        oid = self.raw.create_commit(
            None, who, who, message, pygit2.Oid(hex=tree), [pygit2.Oid(hex=p) for p in parents]
        )
        return str(oid)

    def tag(self, name: str, target: str, message: str, author: str) -> str:
        """Stage an annotated tag of a commit; return its id."""
        who = signature(author).now()
        text = (
            f"object {target}\ntype commit\ntag {name}\n"
            f"tagger {who.name} <{who.email}> {who.time} +0000\n\n{message}\n"
        )
        return str(self._staged.write(ObjectType.TAG, text.encode()))

    def publish(self) -> None:
        """Bring everything staged into the repository, durably, as one pack.

        The caller holds the repo's lock.
        """
        builder = pygit2.PackBuilder(self.raw)
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            builder.add(pygit2.Oid(hex=path.parent.name + path.name))
        if len(builder) == 0:
            return
        made = self._folder / "pack"
        made.mkdir()
        builder.write(str(made))
        install(made, self.repo.folder / "objects" / "pack")
        join_packs(self.repo.raw, self.repo.folder)


def advance(repo: GitRepo, ref: str, new: str, expected: str | None) -> None:
    """Move a ref from `expected` (None: it does not exist yet) to `new`, durably.

    The caller holds the repo's lock, so looking and moving cannot be torn apart.

    Raises:
        StaleParent: It stands elsewhere by now.
    """
    standing = standing_at(repo, ref)
    if standing != expected:
        raise StaleParent(
            "The branch was updated since you opened this page. Please refresh and try again.",
            f"The branch is at {standing}.",
        )
    if not pygit2.reference_is_valid_name(ref):
        raise Malformed(f"Invalid ref name: {ref}")
    refs.replace(repo.folder, ref, new)


def standing_at(repo: GitRepo, ref: str) -> str | None:
    """Return the commit that a ref points to, or None when there is no such ref."""
    target = repo.target(ref)
    return target[1] if target else None
