"""`git-receive-pack`: what `git push` sends. Looked at in a stage of its own, then published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import pygit2
from pygit2.enums import ObjectType

from hublora.filesystem import sync_folder

from ..store import Store, pointers
from ..store.errors import Forbidden, Malformed, StaleParent, StoreError
from ..store.git import DEFAULT_BRANCH, GitRepo
from ..store.names import check_new_branch, check_path
from ..store.repos import Repo
from ..store.writing import Stage, advance, standing_at
from . import packets
from .unpack import unpack

CAPABILITIES = "report-status delete-refs ofs-delta side-band-64k object-format=sha1 agent=hublora"
NOTHING = "0" * 40
MAX_COMMANDS = 1000
_MODES = frozenset({0o100644, 0o100755, 0o040000})


@dataclass(frozen=True)
class Command:
    """One ref to be moved."""

    old: str
    new: str
    ref: str


def read_commands(stream: IO[bytes]) -> tuple[list[Command], frozenset[str]]:
    """Return the commands of a push and the client's capabilities."""
    commands, capabilities = [], frozenset[str]()
    for number, content in enumerate(packets.section(stream)):
        head, _, tail = content.partition(b"\0")
        if number == 0:
            capabilities = frozenset(tail.decode("ascii", "replace").split())
        try:
            old, new, ref = head.decode("utf-8").rstrip("\n").split(" ")
        except ValueError as problem:
            raise Malformed("This is not a push.") from problem
        if any(len(oid) != 40 or set(oid) - set("0123456789abcdef") for oid in (old, new)):
            raise Malformed("This is not an object id.")
        commands.append(Command(old, new, ref))
        if number > MAX_COMMANDS:
            raise Malformed("Too many refs in one push.")
    return commands, capabilities


def receive(
    store: Store,
    repo: Repo,
    commands: list[Command],
    pack: IO[bytes],
    max_object: int,
    may_move: Callable[[str], None],
) -> list[tuple[str, str | None]]:
    """Carry out a push; return for each ref the reason why not, or None.

    Args:
        store: The store.
        repo: Where it goes.
        commands: The refs to move.
        pack: The stream behind the commands.
        max_object: The largest file that is taken outside of LFS.
        may_move: Raises when the pusher has no right to a ref.

    Raises:
        StoreError: The pack cannot be taken; no ref has moved and nothing of it is kept.
    """
    git = store.git(repo)
    with Stage(git) as stage:
        if any(command.new != NOTHING for command in commands):
            found = unpack(pack, stage.raw.odb, max_object)
            _check_objects(store, repo, stage, found)
        with store.lock(repo):
            stage.publish()
            return [(c.ref, _carry_out(store, repo, git, c, may_move)) for c in commands]


def _carry_out(
    store: Store, repo: Repo, git: GitRepo, command: Command, may_move: Callable[[str], None]
) -> str | None:
    """Move one ref under the lock; return why not, or None."""
    try:
        _check_ref(command.ref)
        may_move(command.ref)
        standing = git.raw.references.get(command.ref)
        if (str(standing.target) if standing else NOTHING) != command.old:
            raise StaleParent("it has moved in the meantime: fetch first")
        if command.new == NOTHING:
            if command.ref == f"refs/heads/{DEFAULT_BRANCH}" or command.ref.startswith("refs/pr/"):
                raise Forbidden("it cannot be deleted")
            git.raw.references.delete(command.ref)
            sync_folder((git.folder / command.ref).parent)
            return None
        expected = standing_at(git, command.ref)
        _commit_behind(git, command)
        if command.ref == f"refs/heads/{DEFAULT_BRANCH}":
            store.commits.move(repo, git, command.ref, command.new, expected)
        else:
            advance(git, command.ref, command.new, expected)
    except StoreError as problem:
        return problem.message
    return None


def _check_ref(ref: str) -> None:
    for prefix in ("refs/heads/", "refs/tags/"):
        if ref.startswith(prefix):
            check_new_branch(ref.removeprefix(prefix))
            return
    if not ref.startswith("refs/pr/"):
        raise Forbidden("only branches, tags and open pull requests can be pushed to")


def _commit_behind(git: GitRepo, command: Command) -> None:
    """Refuse a ref to something that is no commit; only tags may be tag objects."""
    try:
        found = git.raw[command.new]
        found.peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError) as problem:
        raise Malformed("it does not lead to a commit") from problem
    if not isinstance(found, pygit2.Commit) and not command.ref.startswith("refs/tags/"):
        raise Malformed("a branch leads to a commit")


def _check_objects(
    store: Store, repo: Repo, stage: Stage, found: list[tuple[ObjectType, str]]
) -> None:
    """Look at everything new: whole, without dangerous names, large files present.

    Raises:
        Malformed: Something is not as it must be; the message says what.
    """
    odb = stage.raw.odb
    for kind, oid in found:
        if kind == ObjectType.COMMIT:
            commit = stage.raw[oid].peel(pygit2.Commit)
            for needed in (commit.tree_id, *commit.parent_ids):
                if needed not in odb:
                    raise Malformed(f"commit {oid[:10]} needs {needed}, which is not here")
        elif kind == ObjectType.TREE:
            for item in stage.raw[oid].peel(pygit2.Tree):
                _check_item(odb, item)
        elif kind == ObjectType.BLOB:
            _check_pointer(store, repo, stage, oid)


def _check_item(odb: pygit2.Odb, item: pygit2.Object) -> None:
    name = item.name or ""
    if int(item.filemode) not in _MODES:
        raise Malformed(f"'{name[:80]}' is a symbolic link or a submodule, which are not taken")
    if "/" in name:
        raise Malformed("a name in a tree has a '/'")
    check_path(name)
    if item.id not in odb:
        raise Malformed(f"'{name[:80]}' is not in the push")


def _check_pointer(store: Store, repo: Repo, stage: Stage, oid: str) -> None:
    _, size = stage.raw.odb.read_header(pygit2.Oid(hex=oid))
    if size > pointers.MAX_POINTER_BYTES:
        return
    pointer = pointers.decode(stage.raw.odb.read(pygit2.Oid(hex=oid))[1])
    if pointer and store.large.has(repo.id, pointer.oid) is None:
        raise Malformed(
            f"the large file {pointer.oid[:12]} is not here: push it with git-lfs"
            " (`git lfs push --all`)"
        )


def report(
    results: list[tuple[str, str | None]], capabilities: frozenset[str], broken: str | None = None
) -> bytes:
    """Return the status report of a push; `broken` is why its pack was not taken."""
    if "report-status" not in capabilities:
        return packets.FLUSH
    lines = [packets.line(f"unpack {_one_line(broken) if broken else 'ok'}\n")]
    for ref, reason in results:
        lines.append(packets.line(f"ng {ref} {_one_line(reason)}\n" if reason else f"ok {ref}\n"))
    content = b"".join(lines) + packets.FLUSH
    if "side-band-64k" not in capabilities:
        return content
    words = packets.band(packets.PROGRESS, f"{broken}\n".encode()) if broken else b""
    return words + packets.band(packets.DATA, content) + packets.FLUSH


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:200]
