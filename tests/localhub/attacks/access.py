"""Repos, large files and tokens of somebody else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

from .world import Attack, World, batch, large, put

# fmt: off
PRIVATE_READS = {
    "info": "/api/models/me/vault", "its files": "/api/models/me/vault/tree/main",
    "a file": "/me/vault/resolve/main/secret.txt", "a large file": "/me/vault/resolve/main/s.bin",
    "history": "/api/models/me/vault/commits/main", "refs": "/api/models/me/vault/refs",
    "discussions": "/api/models/me/vault/discussions",
    "a proposal's diff": "/api/models/me/vault/discussions/1?diff=1",
    "a proposal's page": "/me/vault/discussions/1", "its page": "/me/vault",
    "its history page": "/me/vault/commits/main",
    "a file's page": "/me/vault/blob/main/secret.txt",
    "a comparison": "/me/vault/compare/main..main",
    "git": "/me/vault.git/info/refs?service=git-upload-pack",
    "who likes it": "/api/models/me/vault/likers",
    "its large files": "/api/models/me/vault/lfs-files",
    "the right to it": "/api/models/me/vault/auth-check",
    "who asked": "/api/models/me/vault/user-access-request/pending",
}
# fmt: on


def strangers() -> Iterator[Attack]:
    for name, path in PRIVATE_READS.items():
        yield Attack(
            "a private repo",
            f"{name}, without, with another's, a wrong and a revoked token",
            lambda w, p=path: [w.ask("GET", p, token=t) for t in (None, w.eve, "hf_x", w.revoked)],
        )
    quiet = frozenset({200})
    yield Attack(
        "a private repo",
        "by the collections that list it",
        lambda w: [
            w.ask("GET", "/api/collections?item=models/me/vault", token=w.eve),
            w.ask("GET", "/api/collections?item=models/me/old-vault"),
        ],
        quiet,
    )
    yield Attack(
        "a private repo",
        "in lists, searches and tags of others",
        lambda w: [
            w.ask("GET", "/api/models?search=vault&full=1", token=w.eve),
            w.ask("GET", "/models?search=vault", accept="text/html"),
            w.ask("GET", "/api/models?filter=vault-tag"),
            w.ask("GET", "/api/models-tags-by-type"),
            w.ask("GET", "/api/users/me/overview"),
        ],
        quiet,
    )
    yield Attack(
        "a private repo",
        "its former name, and its commit under another repo's name",
        lambda w: [
            w.ask("GET", "/api/models/me/old-vault", token=w.eve),
            w.ask("GET", f"/me/open/resolve/{w.vault_commit}/secret.txt", token=w.eve),
        ],
    )
    yield Attack(
        "a private repo",
        "changed by a stranger: commit, branch, delete, move, settings, proposal",
        lambda w: [
            w.commit(put("x"), repo="me/vault", token=w.eve),
            w.ask("POST", "/api/models/me/vault/commit/main?create_pr=1", "{}", w.eve),
            w.ask("POST", "/api/models/me/vault/branch/x", {}, w.eve),
            w.ask("DELETE", "/api/repos/delete", {"name": "me/vault"}, w.eve),
            w.ask("POST", "/api/repos/move", {"fromRepo": "me/vault", "toRepo": "eve/x"}, w.eve),
            w.ask("PUT", "/api/models/me/vault/settings", {"visibility": "public"}, w.eve),
            w.ask("POST", "/api/models/me/vault/discussions", {"title": "hello"}, w.eve),
            w.ask("POST", "/api/models/me/vault/like", {}, w.eve),
            w.ask("POST", "/me/vault/ask-access", {}, w.eve),
            w.ask("POST", "/api/models/me/vault/duplicate", {"repository": "eve/x"}, w.eve),
        ],
    )
    yield Attack(
        "an open repo",
        "changed by a stranger and by a token that only reads",
        lambda w: [
            w.ask(method, path, body, token)
            for token in (w.eve, w.reader, w.one_repo)
            for method, path, body in (
                ("POST", "/api/models/me/open/commit/main", "{}"),
                ("POST", "/api/models/me/open/branch/x", {}),
                ("POST", "/api/models/me/open/tag/main", {"tag": "x"}),
                ("POST", "/api/models/me/open/super-squash/main", {}),
                ("POST", "/api/models/me/open/revert/main", {}),
                ("POST", "/api/models/me/open/discussions/1/merge", {}),
                ("POST", "/api/models/me/open/lfs-files/batch", {"deletions": {"sha": []}}),
                ("PUT", "/api/models/me/open/settings", {"visibility": "private"}),
                ("DELETE", "/api/repos/delete", {"name": "me/open"}),
                ("POST", "/api/models/me/open/user-access-request/grant", {"user": "eve"}),
            )
        ],
    )
    yield Attack(
        "a gated repo",
        "its files before the owner's consent, by every road",
        lambda w: (
            [
                w.ask("GET", path, token=token)
                for token in (None, w.eve, w.one_repo)
                for path in (
                    "/me/gated/resolve/main/secret.txt",
                    "/me/gated/raw/main/secret.txt",
                    "/me/gated/blob/main/secret.txt",
                    "/api/models/me/gated/tree/main",
                    "/me/gated/info/refs?service=git-upload-pack",
                    "/me/gated/commits/main",
                    "/api/models/me/gated/discussions",
                )
            ]
            + [
                w.ask(
                    "POST",
                    "/me/gated.git/info/lfs/objects/batch",
                    batch(w.secret_oid, w.secret_size, "download"),
                    w.eve,
                )
            ]
        ),
    )


def large_files() -> Iterator[Attack]:
    yield Attack(
        "large files",
        "a private one's sha256 claimed in a commit of one's own",
        lambda w: w.commit(large(w.secret_oid, w.secret_size), repo="eve/own", token=w.eve),
    )
    yield Attack(
        "large files",
        "a private one's sha256 announced: the answer is to send it, as for any other",
        lambda w: "told" if _announced(w) else 403,
        frozenset({403}),
    )
    yield Attack(
        "large files",
        "a private one by its sha256 through one's own repo",
        lambda w: 404 if _download_error(w) else 200,
    )
    yield Attack(
        "large files",
        "a path for an object id",
        lambda w: [
            w.ask("POST", "/me/open.git/info/lfs/objects/batch", batch(oid, 5), w.owner)
            for oid in ("../../secret", "a" * 63, "A" * 64, "/etc/passwd", "a" * 64 + "/..")
        ],
    )
    yield Attack(
        "large files",
        "sizes that are none: negative, huge, text, true",
        lambda w: [
            w.ask("POST", "/me/open.git/info/lfs/objects/batch", batch("a" * 64, size), w.owner)
            for size in (-1, 2**60, "5", True)  # type: ignore[arg-type]
        ],
    )
    yield Attack(
        "large files",
        "an upload without, with a made-up and with another upload's proof",
        lambda w: [
            w.ask("PUT", f"/_lfs/upload/{w.vault_id}/{'a' * 64}/3/0{proof}", b"abc")
            for proof in ("", "?proof=9999999999-" + "0" * 64, "?proof=" + _proof(w, "b" * 64))
        ],
    )
    yield Attack("large files", "other content than announced", lambda w: _upload(w, b"zzz"))
    yield Attack("large files", "more than announced", lambda w: _upload(w, b"z" * 5000))
    yield Attack("large files", "less than announced", lambda w: _upload(w, b"z"))
    yield Attack(
        "large files",
        "100,000 objects in one batch",
        lambda w: w.ask(
            "POST",
            "/me/open.git/info/lfs/objects/batch",
            {"operation": "upload", "objects": [{"oid": "a" * 64, "size": 1}] * 100_000},
            w.owner,
        ),
    )


def _announced(w: World) -> bool:
    """Tell whether the server gives away that it has a stranger's private file."""
    w.ask("POST", "/eve/own.git/info/lfs/objects/batch", batch(w.secret_oid, w.secret_size), w.eve)
    (known,) = json.loads(w.seen[-1].split(b"\n")[0].rpartition(b"}")[0] + b"}")["objects"]
    w.ask("POST", "/eve/own.git/info/lfs/objects/batch", batch("c" * 64, w.secret_size), w.eve)
    (unknown,) = json.loads(w.seen[-1].split(b"\n")[0].rpartition(b"}")[0] + b"}")["objects"]
    return known.keys() != unknown.keys()


def _download_error(w: World) -> bool:
    wanted = batch(w.secret_oid, w.secret_size, "download")
    w.ask("POST", "/eve/own.git/info/lfs/objects/batch", wanted, w.eve)
    return b'"error"' in w.seen[-1] and b"href" not in w.seen[-1]


def _proof(w: World, oid: str) -> str:
    w.ask("POST", "/me/open.git/info/lfs/objects/batch", batch(oid, 3), w.owner)
    return w.seen[-1].split(b"proof=")[1].split(b'"')[0].decode()


def _upload(w: World, content: bytes) -> int:
    oid = hashlib.sha256(b"abc").hexdigest()
    w.ask("POST", "/me/open.git/info/lfs/objects/batch", batch(oid, 3), w.owner)
    href = w.seen[-1].split(b'"href":"')[1].split(b'"')[0].decode()
    return w.ask("PUT", href.removeprefix(w.url), content)


def changed(token: str, place: int) -> str:
    """Return a token with another character at one place."""
    return token[:place] + ("B" if token[place] == "A" else "A") + token[place + 1 :]


def tokens() -> Iterator[Attack]:
    who = "/api/whoami-v2"
    yield Attack(
        "tokens",
        "none, wrong, revoked, empty, 8,000 characters, other letters, another scheme",
        lambda w: [
            w.ask("GET", who, authorization=value)
            for value in (
                "Bearer hf_wrong",
                f"Bearer {w.revoked}",
                "Bearer ",
                "Bearer " + "x" * 8000,
                "Bearer \xff\xfe",
                "Basic ????",
                "Basic " + base64.b64encode(b"me:hf_wrong").decode(),
                "Digest x",
                w.owner,
            )
        ],
    )
    yield Attack(
        "tokens",
        "almost right: another first, middle or last character, cut short, longer, its hash",
        lambda w: [
            w.ask("GET", who, token=token)
            for token in (
                *(changed(w.owner, place) for place in (3, 20, len(w.owner) - 1)),
                w.owner[:-1],
                w.owner + "A",
                hashlib.sha256(w.owner.encode()).hexdigest(),
            )
        ],
    )
    yield Attack(
        "tokens",
        "one that only reads, to like and to ask for access",
        lambda w: [
            w.ask(method, path, b"", w.reader)
            for method, path in (
                ("POST", "/api/models/me/open/like"),
                ("DELETE", "/api/models/me/open/like"),
                ("POST", "/me/gated/ask-access"),
            )
        ],
    )
    yield Attack(
        "tokens",
        "in the address, where logs would keep it",
        lambda w: w.ask("GET", f"{who}?token={w.owner}&access_token={w.owner}"),
    )
    yield Attack(
        "tokens",
        "one for one repo, used for another, for creating and for discussions",
        lambda w: [
            w.ask("GET", "/api/models/me/vault", token=w.one_repo),
            w.commit(put("x"), token=w.one_repo),
            w.ask("POST", "/api/repos/create", {"name": "x"}, w.one_repo),
            w.ask("POST", "/api/models/me/open/discussions", {"title": "abc"}, w.one_repo),
            w.ask("POST", "/api/collections", {"title": "x", "namespace": "me"}, w.one_repo),
        ],
    )
