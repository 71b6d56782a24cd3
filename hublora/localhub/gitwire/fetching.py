"""`git-upload-pack`: what `git clone`, `fetch` and `pull` ask for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pygit2

from ..store.errors import Malformed
from ..store.git import GitRepo
from . import packets

CAPABILITIES = (
    "multi_ack_detailed side-band-64k ofs-delta shallow no-progress include-tag"
    " allow-tip-sha1-in-want allow-reachable-sha1-in-want symref=HEAD:refs/heads/main"
    " object-format=sha1 agent=hublora"
)
MAX_LINES = 100_000


@dataclass
class Wish:
    """What a client wants, has, and where its history is cut off."""

    wants: list[str] = field(default_factory=list)
    haves: list[str] = field(default_factory=list)
    shallow: set[str] = field(default_factory=set)
    depth: int = 0
    done: bool = False
    capabilities: frozenset[str] = frozenset()


def advertise(git: GitRepo) -> bytes:
    """Return the refs that a client may ask for: the first line carries what we can do."""
    lines: list[str] = []
    for name, (target, commit) in git.targets().items():
        if name == "refs/heads/main":
            lines.insert(0, f"{target} HEAD")
        lines.append(f"{target} {name}")
        if commit != target:
            lines.append(f"{commit} {name}^{{}}")
    first, *rest = lines or [f"{'0' * 40} capabilities^{{}}"]
    out = [packets.line(f"{first}\0{CAPABILITIES}\n")]
    return b"".join([*out, *(packets.line(f"{each}\n") for each in rest), packets.FLUSH])


def read_wish(stream: IO[bytes]) -> Wish:
    """Return what a request says."""
    wish = Wish()
    for number, content in enumerate(packets.section(stream)):
        word, _, rest = content.decode("ascii", "replace").strip().partition(" ")
        if number == 0:
            rest, _, capabilities = rest.partition(" ")
            wish.capabilities = frozenset(capabilities.split())
        if word == "want":
            wish.wants.append(_oid(rest))
        elif word == "shallow":
            wish.shallow.add(_oid(rest))
        elif word == "deepen" and rest.isdigit():
            wish.depth = int(rest)
        else:
            raise Malformed(f"Not taken in a fetch: {word[:30]}")
        if number > MAX_LINES:
            raise Malformed("Too many lines in one fetch.")
    while True:
        said = list(packets.section(stream))
        for content in said:
            word, _, rest = content.decode("ascii", "replace").strip().partition(" ")
            if word == "have":
                wish.haves.append(_oid(rest))
            elif word == "done":
                wish.done = True
        if not said or wish.done or len(wish.haves) > MAX_LINES:
            return wish


def _oid(text: str) -> str:
    if len(text) != 40 or set(text) - set("0123456789abcdef"):
        raise Malformed("This is not an object id.")
    return text


def wanted_commits(git: GitRepo, wish: Wish) -> list[str]:
    """Return the commits that are wanted.

    Raises:
        Malformed: One of them is not here.
    """
    found = [_commit(git, oid) for oid in wish.wants]
    if not found or any(commit is None for commit in found):
        raise Malformed("Something is wanted that is not here.")
    return [commit for commit in found if commit]


def answer(git: GitRepo, wish: Wish, tips: list[str], folder: Path) -> Iterator[bytes]:
    """Yield the answer: negotiation, and when it is over, the pack."""
    cut: set[str] = set()
    if wish.depth:
        cut = _cut(git, tips, wish.depth)
        yield b"".join(packets.line(f"shallow {oid}") for oid in sorted(cut - wish.shallow))
        yield b"".join(packets.line(f"unshallow {oid}") for oid in sorted(wish.shallow - cut))
        yield packets.FLUSH
        if not wish.haves and not wish.done:
            return
    common = [oid for oid in wish.haves if oid in git.raw]
    detailed = "multi_ack_detailed" in wish.capabilities
    if not wish.done:
        for oid in common if detailed else common[:1]:
            yield packets.line(f"ACK {oid} common\n" if detailed else f"ACK {oid}\n")
        if common and detailed:
            yield packets.line(f"ACK {common[-1]} ready\n")
        if detailed or not common:
            yield packets.line("NAK\n")
        return
    yield packets.line(f"ACK {common[-1]}\n" if common else "NAK\n")
    yield from _pack(git, wish, tips, common, cut, folder)


def _pack(
    git: GitRepo, wish: Wish, tips: list[str], common: list[str], cut: set[str], folder: Path
) -> Iterator[bytes]:
    builder = pygit2.PackBuilder(git.raw)
    for oid in _objects(git, wish, tips, common, cut):
        builder.add(pygit2.Oid(hex=oid))
    builder.write(str(folder))
    (pack,) = folder.glob("*.pack")
    banded = "side-band-64k" in wish.capabilities
    with pack.open("rb") as file:
        while chunk := file.read(packets.MAX_DATA * 16):
            yield packets.band(packets.DATA, chunk) if banded else chunk
    if banded:
        yield packets.FLUSH


def _objects(
    git: GitRepo, wish: Wish, tips: list[str], common: list[str], cut: set[str]
) -> Iterator[str]:
    """Yield the ids of all that the client lacks."""
    known_tips = [commit for oid in common if (commit := _commit(git, oid))]
    # A shallow client does not have what is beyond where its history is cut off.
    known = set(_ancestors(git, known_tips, stop=wish.shallow))
    seen: set[str] = set()
    for oid in known_tips[:200]:
        seen.update(_tree_objects(git, str(git.raw[oid].peel(pygit2.Commit).tree.id), seen))
    new = []
    # To deepen is to go on below what the client has; any other fetch ends where that begins.
    skip: set[str] = set() if wish.depth else known
    for oid in _ancestors(git, tips, stop=cut, skip=skip):
        if oid not in known:
            new.append(oid)
            yield oid
    for oid in new:
        yield from _tree_objects(git, str(git.raw[oid].peel(pygit2.Commit).tree.id), seen)
    sent = {*new, *known}
    for target, commit in git.targets().values():
        asked = "include-tag" in wish.capabilities or target in wish.wants
        found = git.raw[target] if asked and commit in sent else None
        while isinstance(found, pygit2.Tag):
            yield str(found.id)
            found = git.raw[found.target]


def _ancestors(
    git: GitRepo, tips: Iterable[str], stop: set[str], skip: set[str] | frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield commits from `tips` on; not beyond those in `stop`, and none of `skip`."""
    queue, seen = deque(tips), set(skip)
    while queue:
        oid = queue.popleft()
        if oid in seen:
            continue
        seen.add(oid)
        yield oid
        if oid not in stop:
            queue.extend(str(parent) for parent in git.raw[oid].peel(pygit2.Commit).parent_ids)


def _cut(git: GitRepo, tips: list[str], depth: int) -> set[str]:
    """Return the commits at which a history of `depth` ends though it goes on."""
    layer, seen = set(tips), set(tips)
    for _ in range(depth - 1):
        parents = {str(p) for oid in layer for p in git.raw[oid].peel(pygit2.Commit).parent_ids}
        layer = parents - seen
        seen |= layer
        if not layer:
            break
    return {oid for oid in layer if git.raw[oid].peel(pygit2.Commit).parent_ids}


def _tree_objects(git: GitRepo, tree: str, seen: set[str]) -> Iterator[str]:
    """Yield a tree and all that is in it and was not seen before."""
    stack = [tree]
    while stack:
        oid = stack.pop()
        if oid in seen:
            continue
        seen.add(oid)
        yield oid
        for item in git.raw[oid].peel(pygit2.Tree):
            inner = str(item.id)
            if isinstance(item, pygit2.Tree):
                stack.append(inner)
            elif inner not in seen and isinstance(item, pygit2.Blob):
                seen.add(inner)
                yield inner


def _commit(git: GitRepo, oid: str) -> str | None:
    """Return the commit behind an id, which may be a tag's."""
    try:
        return str(git.raw[oid].peel(pygit2.Commit).id)
    except (KeyError, ValueError, pygit2.GitError):
        return None
