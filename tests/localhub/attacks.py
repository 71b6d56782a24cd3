"""What somebody might try, as a table: `test_attacks` carries it out, docs/hub-attacks.md shows it.

Each attack makes requests and returns how each was answered: a status, or `cut` when the server
closed the connection. Answers that are allowed to succeed say so in `accepts`; none of them may
carry a secret.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECRET = b"TOP-SECRET-7f3a"
REFUSED = frozenset({400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 414, 415, 416, 422, 431})
Answer = int | str


@dataclass
class World:
    """A Hub with something to hide: `me/vault` is private, `me/gated` gated, `me/open` open."""

    url: str
    folder: Path
    owner: str
    eve: str
    reader: str
    one_repo: str
    revoked: str
    secret_oid: str
    secret_size: int
    vault_commit: str
    vault_id: str
    seen: list[bytes] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        token: str | None = None,
        **headers: str,
    ) -> int:
        """Make one request exactly as written: nothing is normalised on the way."""
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        if isinstance(body, dict):
            sent["content-type"] = "application/json"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if content is not None and "content-length" not in sent:
                connection.putheader("content-length", str(len(content)))
            connection.endheaders()
            try:
                if content:
                    connection.send(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough; what it says is still to be read
            answer = connection.getresponse()
            self.seen.append(answer.read(4 << 20) + str(answer.headers).encode())
            return answer.status
        except (ConnectionError, http.client.HTTPException, TimeoutError):
            return 400
        finally:
            connection.close()

    def commit(
        self, *lines: dict[str, Any], repo: str = "me/open", token: str | None = None
    ) -> int:
        """Commit operations as NDJSON."""
        header = {"key": "header", "value": {"summary": "attack"}}
        body = "".join(json.dumps(line) + "\n" for line in (header, *lines))
        return self.ask("POST", f"/api/models/{repo}/commit/main", body, token or self.owner)

    def trickle(self, *pieces: bytes) -> str:
        """Send pieces a second apart; return `cut` when the server has had enough."""
        where = urlsplit(self.url)
        with socket.create_connection((where.hostname, where.port), timeout=15) as wire:
            try:
                for piece in pieces:
                    wire.sendall(piece)
                    time.sleep(0.4)
                wire.settimeout(12)
                answer = wire.recv(65_536)
            except (ConnectionError, TimeoutError) as problem:
                return "open" if isinstance(problem, TimeoutError) else "cut"
            self.seen.append(answer)
            return answer.split(b" ")[1].decode() if answer.startswith(b"HTTP") else "cut"


@dataclass(frozen=True)
class Attack:
    """One line of the table."""

    area: str
    what: str
    act: Callable[[World], Answer | list[Answer]]
    accepts: frozenset[Answer] = frozenset()


def put(path: str) -> dict[str, Any]:
    """Return the operation that writes a small file."""
    value = {"path": path, "content": base64.b64encode(b"x").decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def large(oid: str, size: int) -> dict[str, Any]:
    """Return the operation that names a large file."""
    return {
        "key": "lfsFile",
        "value": {"path": "x.bin", "algo": "sha256", "oid": oid, "size": size},
    }


def batch(oid: str, size: int, operation: str = "upload") -> dict[str, Any]:
    """Return an LFS batch of one object."""
    return {
        "operation": operation,
        "transfers": ["basic"],
        "objects": [{"oid": oid, "size": size}],
    }


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


# fmt: off
READ_PATHS = {
    "plain dots": "/me/open/resolve/main/../../../../../../etc/passwd",
    "encoded dots": "/me/open/resolve/main/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret",
    "encoded slashes": "/me/open/resolve/main/..%2f..%2f..%2f..%2fsecret",
    "doubly encoded": "/me/open/resolve/main/%252e%252e%252f%252e%252e%252fsecret",
    "an absolute path": "/me/open/resolve/main//etc/passwd",
    "an encoded absolute path": "/me/open/resolve/main/%2fetc%2fpasswd",
    "a NUL": "/me/open/resolve/main/a.txt%00.png",
    "overlong UTF-8": "/me/open/resolve/main/%c0%ae%c0%ae/secret",
    "broken UTF-8": "/me/open/resolve/main/%ff%fe",
    "full-width dots": "/me/open/resolve/main/%ef%bc%8e%ef%bc%8e/secret",
    "backslashes": "/me/open/resolve/main/..%5c..%5csecret",
    "the repository's own .git": "/me/open/resolve/main/.git/config",
    "dots in a tree": "/api/models/me/open/tree/main/..%2f..%2f..",
    "dots in a raw link": "/me/open/raw/main/..%2f..%2fhub.sqlite",
    "dots in a file page": "/me/open/blob/main/..%2f..%2fhub.sqlite",
    "dots in a revision": "/me/open/resolve/..%2f..%2f..%2fsecret/x",
    "a revision expression": "/me/open/resolve/main%5e%7btree%7d/a.txt",
    "a path in a revision": "/me/open/resolve/main:a.txt/a.txt",
    "a reflog revision": "/me/open/resolve/HEAD@%7b1%7d/a.txt",
    "a search revision": "/me/open/resolve/:%2Fattack/a.txt",
    "a NUL in a revision": "/me/open/resolve/main%00/a.txt",
    "an option as a revision": "/me/open/resolve/--output=x/a.txt",
    "dots in a repo name": "/api/models/..%2f..%2fetc/passwd",
    "dots as a repo name": "/api/models/../..",
    "dots in a static path": "/_static/..%2f..%2fhub.sqlite",
    "dots in an LFS link": "/_lfs/download/..%2f..%2f/hub/1/0?proof=1-1",
}
WRITTEN_PATHS = {
    "dots": "../evil", "dots within": "a/../../evil", "an absolute path": "/evil",
    ".git": ".git/hooks/post-commit", ".GIT": "a/.GIT/config",
    ".git hidden by a format character (HFS+)": ".g\u200cit/config",
    ".git by its short name (NTFS)": "git~1/config",
    ".git with a stream (NTFS)": ".git::$INDEX_ALLOCATION/config",
    ".git with a dot": ".git./config", ".git full-width": ".\uff47it/config",
    "backslashes": "..\\evil", "a NUL": "a\0b", "a newline": "a\nb", "nothing": "",
    "an empty segment": "a//b", "a dot": "./a/./b", "5,000 characters": "a/" * 2500 + "b",
    "a surrogate": "\ud800",
}
NAMES = {
    "dots": "../evil", "a nested name": "a/b/c", ".git at the end": "evil.git", "only dots": "..",
    "200 characters": "a" * 200, "other letters": "\u0435vil", "a NUL": "a\0b", "nothing": "",
}
BRANCHES = {
    "dots": "..%2f..%2f..%2fevil", "a full ref": "refs%2fpr%2f1", "a lock": "a.lock",
    "an option": "-evil", "HEAD": "HEAD", "a commit id": "a" * 40, "a NUL": "a%00b",
    "a hidden folder": ".evil", "an absolute path": "%2fetc%2fevil", "a space": "a%20b",
}
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


def table() -> Iterator[Attack]:
    """Yield every attack."""
    yield from _paths()
    yield from _strangers()
    yield from _large_files()
    yield from _tokens()
    yield from _bodies()
    yield from _git()
    yield from _browsers()


def _paths() -> Iterator[Attack]:
    for name, path in READ_PATHS.items():
        yield Attack("reading paths", name, lambda w, p=path: w.ask("GET", p, token=w.owner))
    for name, path in WRITTEN_PATHS.items():
        yield Attack("writing paths", name, lambda w, p=path: w.commit(put(p)))
        yield Attack(
            "deleting paths",
            name,
            lambda w, p=path: w.commit({"key": "deletedFolder", "value": {"path": p}}),
        )
    for name, repo in NAMES.items():
        yield Attack(
            "repo names",
            name,
            lambda w, n=repo: [
                w.ask("POST", "/api/repos/create", {"name": "x", "organization": n}, w.owner)
                if n
                else 400,
                w.ask("POST", "/api/repos/create", {"name": f"me/{n}"}, w.owner),
                w.ask(
                    "POST",
                    "/api/repos/move",
                    {"fromRepo": "me/open", "toRepo": f"me/{n}"},
                    w.owner,
                ),
                w.ask(
                    "POST",
                    "/api/models/me/open/duplicate",
                    {"repository": f"me/{n}"},
                    w.owner,
                ),
            ],
        )
    for name, branch in BRANCHES.items():
        yield Attack(
            "branch and tag names",
            name,
            lambda w, b=branch: [
                w.ask("POST", f"/api/models/me/open/branch/{b}", {}, w.owner),
                w.ask("DELETE", f"/api/models/me/open/branch/{b}", None, w.owner),
                w.ask("POST", "/api/models/me/open/tag/main", {"tag": _plain(b)}, w.owner),
                w.ask("POST", f"/api/models/me/open/commit/{b}", "{}", w.owner),
            ],
        )


def _plain(quoted: str) -> str:
    return quoted.replace("%2f", "/").replace("%00", "\0").replace("%20", " ")


def _strangers() -> Iterator[Attack]:
    for name, path in PRIVATE_READS.items():
        yield Attack(
            "a private repo",
            f"{name}, without, with another's, a wrong and a revoked token",
            lambda w, p=path: [w.ask("GET", p, token=t) for t in (None, w.eve, "hf_x", w.revoked)],
        )
    quiet = frozenset({200})
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


def _large_files() -> Iterator[Attack]:
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


def _tokens() -> Iterator[Attack]:
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


def _bodies() -> Iterator[Attack]:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )

    def yaml(text: str) -> Callable[[World], int]:
        body = {"content": f"---\n{text}\n---\n"}
        return lambda w: w.ask("POST", "/api/validate-yaml", body, w.owner)

    yield Attack("bodies", "YAML: a billion laughs", yaml(bomb))
    yield Attack(
        "bodies", "YAML: an object to construct", yaml("a: !!python/object/apply:os.system [id]")
    )
    yield Attack("bodies", "YAML: 20,000 levels deep", yaml("[" * 20_000))
    yield Attack("bodies", "YAML: a number of 100,000 digits", yaml("a: " + "9" * 100_000))
    yield Attack("bodies", "a README of 5 MB", yaml("a: b\n" * 1_000_000))
    yield Attack(
        "bodies",
        "JSON: 100,000 levels deep, not JSON, not an object, NaN",
        lambda w: [
            w.ask("POST", "/api/repos/create", body, w.owner)
            for body in ("[" * 100_000, "{", "[]", '{"name": NaN}', b"\xff\xfe")
        ],
    )
    yield Attack(
        "bodies",
        "JSON of 20 MB",
        lambda w: w.ask("POST", "/api/repos/create", b" " * (20 << 20), w.owner),
    )
    yield Attack(
        "bodies",
        "a commit whose one line never ends",
        lambda w: w.ask(
            "POST", "/api/models/me/open/commit/main", b'{"key": "' + b"x" * (16 << 20), w.owner
        ),
    )
    yield Attack(
        "bodies",
        "a commit without a header, of unknown operations, of broken base64",
        lambda w: [
            w.ask("POST", "/api/models/me/open/commit/main", "", w.owner),
            w.commit({"key": "exec", "value": {}}),
            w.commit({"key": "file", "value": {"path": "a", "content": "%", "encoding": "base64"}}),
            w.commit({"key": "file", "value": ["a"]}),
            w.commit({"key": "file", "value": {"path": ["a"], "content": 1}}),
        ],
    )
    yield Attack(
        "bodies",
        "20,001 paths asked for at once",
        lambda w: w.ask(
            "POST", "/api/models/me/open/paths-info/main", "&".join(["paths=a"] * 20_001)
        ),
    )
    yield Attack(
        "bodies",
        "a header of 100 kB, and 5,000 headers",
        lambda w: [
            w.ask("GET", "/health", x="a" * 100_000),
            w.ask("GET", "/health", **{f"x{i}": "a" for i in range(5000)}),
        ],
    )
    yield Attack(
        "bodies",
        "lengths that lie: negative, text, twice",
        lambda w: [
            w.ask("POST", "/api/repos/create", b"{}", w.owner, content_length=value)
            for value in ("-1", "abc", "2, 3")
        ],
    )
    yield Attack(
        "bodies",
        "headers that come a letter at a time",
        lambda w: w.trickle(b"GET /health HTTP/1.1\r\n", *[b"x"] * 12),
        frozenset({"cut", "400", "408"}),
    )
    yield Attack(
        "bodies",
        "a body that stops coming",
        lambda w: w.trickle(
            b"POST /api/repos/create HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n"
            b"authorization: Bearer " + w.owner.encode() + b"\r\n\r\n{"
        ),
        frozenset({"cut", "400", "408"}),
    )
    yield Attack(
        "bodies",
        "methods that nobody has",
        lambda w: [w.ask(m, "/api/models/me/open") for m in ("TRACE", "PATCH", "PROPFIND")],
    )
    yield Attack(
        "bodies",
        "cursors, limits and numbers that are none",
        lambda w: [
            w.ask("GET", path)
            for path in (
                "/api/models?cursor=AAAA",
                "/api/models?limit=-1",
                "/api/models?sort=name;drop",
                "/api/models/me/open/tree/main?cursor=x",
                "/api/models/me/open/discussions/%2e%2e",
                "/api/models/me/open/discussions/" + "9" * 400,
            )
        ],
    )
    yield Attack(
        "bodies",
        "SQL in names, searches and tags",
        lambda w: [
            w.ask("GET", "/api/models?search=%27%20OR%201=1--&author=%27%20OR%20%27a%27=%27a"),
            w.ask("GET", "/api/models?filter=x%27)%20OR%20private=1--"),
        ],
        frozenset({200}),
    )


def _git() -> Iterator[Attack]:
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


def _forms(w: World) -> list[Any]:
    """Fill in every form that a page may show, as everybody who is not offered it."""
    words = "title=A+title&description=words&comment=words&status=closed&liked=yes&user=eve"
    places = ["discussions", "discussions/1/comment", "like"]
    owners = ["discussions/1/merge", "discussions/1/status", "revert/main", "access"]
    return [
        *(
            w.ask("POST", f"/me/open/{place}", words, w.owner, origin="https://evil.example")
            for place in places + owners
        ),
        *(
            w.ask("POST", f"/me/open/{place}", words, token)
            for place in places + owners
            for token in (None, w.reader, w.revoked)
        ),
        *(w.ask("POST", f"/me/open/{place}", words, w.eve) for place in owners),
        *(
            w.ask("POST", f"/me/vault/{place}", words, token)
            for place in places + owners
            for token in (None, w.eve, w.revoked)
        ),
    ]


def _browsers() -> Iterator[Attack]:
    yield Attack(
        "browsers",
        "a change that another site asks a signed-in browser for",
        lambda w: (
            [
                w.ask("POST", "/api/repos/create", {"name": "csrf"}, w.owner, origin=origin)
                for origin in ("https://evil.example", "null", "http://127.0.0.1:1")
            ]
            + [
                w.ask(
                    "DELETE",
                    "/api/repos/delete",
                    {"name": "open"},
                    w.owner,
                    sec_fetch_site="cross-site",
                )
            ]
        ),
    )
    yield Attack(
        "browsers",
        "the forms of a page: from another site, by nobody, by a stranger, by a token that reads",
        _forms,
    )
    yield Attack(
        "browsers",
        "a name that only pretends to be this machine (DNS rebinding)",
        lambda w: w.trickle(b"GET /api/models HTTP/1.1\r\nhost: evil.example\r\n\r\n"),
        frozenset({"403"}),
    )
    yield Attack(
        "browsers",
        "markup in addresses, searches and error messages",
        lambda w: [
            w.ask("GET", "/models?search=%3Cscript%3Ealert(1)%3C/script%3E", accept="text/html"),
            w.ask("GET", "/%3Cscript%3E/%3Cscript%3E", accept="text/html"),
            w.ask("GET", "/me/open/blob/main/%3Cscript%3E", accept="text/html"),
        ],
        frozenset({200}),
    )
    yield Attack(
        "browsers",
        "a line break in an address, to write headers",
        lambda w: [
            w.ask("GET", "/me/open/resolve/main/a%0d%0aset-cookie:%20x=1"),
            w.ask("GET", "/api/models/me%0d%0aset-cookie:x/y"),
            w.ask("GET", "/login?next=%0d%0aset-cookie:x", accept="text/html"),
        ],
    )
