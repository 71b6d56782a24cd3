"""Pushes, which are never taken, and fetches that no git would send."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from .world import Attack


def packet(text: bytes) -> bytes:
    """Return a line of git's protocol."""
    return f"{len(text) + 4:04x}".encode() + text


def _push(new: str) -> bytes:
    """Return the body of a push that makes a branch of a commit."""
    return packet(f"{'0' * 40} {new} refs/heads/evil\0report-status".encode()) + b"0000PACK"


def git() -> Iterator[Attack]:
    fetch = "/me/open.git/git-upload-pack"
    yield Attack(
        "git",
        "a push, by the owner, a stranger and nobody, asked for and not",
        lambda w: [
            w.ask(method, path, body, token)
            for token in (w.owner, w.eve, None)
            for method, path, body in (
                ("GET", "/me/open.git/info/refs?service=git-receive-pack", None),
                ("POST", "/me/open.git/git-receive-pack", _push(w.vault_commit)),
                ("POST", "/me/vault.git/git-receive-pack", b""),
            )
        ],
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
