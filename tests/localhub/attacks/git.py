"""Packs, refs and fetches that no git would send."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator

from .world import Answer, Attack, World


def packet(text: bytes) -> bytes:
    """Return a line of git's protocol."""
    return f"{len(text) + 4:04x}".encode() + text


def pack(*objects: tuple[int, bytes], lie: int | None = None) -> bytes:
    """Return a pack of whole objects; `lie` is the size that each claims."""
    out = b"PACK" + struct.pack(">II", 2, len(objects))
    for kind, content in objects:
        size = len(content) if lie is None else lie
        byte, size = kind << 4 | size & 15, size >> 4
        while size:
            out += bytes([byte | 0x80])
            byte, size = size & 0x7F, size >> 7
        out += bytes([byte]) + zlib.compress(content)
    return out + hashlib.sha1(out).digest()


def push(world: World, content: bytes, new: str = "1" * 40, ref: str = "refs/heads/evil") -> Answer:
    """Push a pack; a refusal inside the protocol counts as 403."""
    line = packet(f"{'0' * 40} {new} {ref}\0report-status".encode()) + b"0000"
    status = world.ask("POST", "/me/open.git/git-receive-pack", line + content, world.owner)
    refused = status == 200 and b"ok refs" not in world.seen[-1] and b"ng " in world.seen[-1]
    return 403 if refused else status


def tree(mode: bytes, name: bytes) -> bytes:
    """Return a git tree of one entry."""
    return mode + b" " + name + b"\0" + b"\1" * 20


def git() -> Iterator[Attack]:
    fetch = "/me/open.git/git-upload-pack"
    yield Attack(
        "git", "a pack with a symbolic link", lambda w: push(w, pack((2, tree(b"120000", b"x"))))
    )
    yield Attack(
        "git", "a pack with a submodule", lambda w: push(w, pack((2, tree(b"160000", b"x"))))
    )
    for name in (b".git", b"..", b".GiT", b"a\\b", b"git~1", b"\xe2\x80\x8c.git", b"a/b", b"\xff"):
        yield Attack(
            "git",
            f"a pack with a file called {name!r}",
            lambda w, n=name: push(w, pack((2, tree(b"100644", n)))),
        )
    yield Attack(
        "git",
        "a pack with a file that is not in it",
        lambda w: push(w, pack((2, tree(b"100644", b"x")))),
    )
    yield Attack(
        "git",
        "an object that inflates to 1 GB",
        lambda w: push(w, pack((3, b"\0" * (20 << 20)), lie=100)),
    )
    yield Attack(
        "git",
        "an object that says it has 2^40 bytes",
        lambda w: push(w, pack((3, b"x"), lie=1 << 40)),
    )
    yield Attack(
        "git", "a pack with a wrong checksum", lambda w: push(w, pack((3, b"x"))[:-1] + b"?")
    )
    yield Attack("git", "a pack cut short", lambda w: push(w, pack((3, b"x" * 99))[:-30]))
    yield Attack("git", "a delta against nothing", lambda w: push(w, pack((7, b"\1" * 30))))
    yield Attack("git", "no pack at all", lambda w: push(w, b""))
    yield Attack("git", "a ref that points to nothing", lambda w: push(w, pack()))
    for ref in (
        "refs/heads/../../../evil",
        "refs/../evil",
        "HEAD",
        "refs/pr/1",
        "refs/heads/a.lock",
    ):
        yield Attack(
            "git",
            f"a push to {ref}",
            lambda w, r=ref: push(w, pack(), new=w.vault_commit, ref=r),
        )
    yield Attack(
        "git",
        "a private repo's commit wanted from an open repo",
        lambda w: w.ask(
            "POST", fetch, packet(f"want {w.vault_commit}\n".encode()) + b"0000" + packet(b"done\n")
        ),
    )
    yield Attack(
        "git",
        "a private repo fetched without asking for its refs",
        lambda w: [
            w.ask(
                "POST",
                "/me/vault.git/git-upload-pack",
                packet(f"want {w.vault_commit}\n".encode()) + b"0000" + packet(b"done\n"),
                token,
            )
            for token in (None, w.eve, w.revoked)
        ],
    )
    yield Attack(
        "git",
        "packets that are none, and a fetch of 1 GB of zeros in gzip",
        lambda w: [
            w.ask("POST", fetch, b"zzzz"),
            w.ask("POST", fetch, b"ffff"),
            w.ask("POST", fetch, gzip.compress(b"\0" * (64 << 20)), content_encoding="gzip"),
            w.ask("POST", fetch, b"not gzip", content_encoding="gzip"),
            w.ask("GET", "/me/open.git/info/refs?service=git-evil"),
        ],
    )
