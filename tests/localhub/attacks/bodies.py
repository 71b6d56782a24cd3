"""Bodies and headers that are too much, or not what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .world import Attack, World


def ignoring(pattern: str) -> dict[str, Any]:
    """Return a preupload of a long path with a `.gitIgnore` of 30 such lines."""
    files = [{"path": "a" * 250 + f"/{number}/b", "size": 1, "sample": ""} for number in range(50)]
    return {"files": files, "gitIgnore": "\n".join([pattern + "x"] * 30)}


def bodies() -> Iterator[Attack]:
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
        "two lengths: Content-Length and Transfer-Encoding",
        lambda w: w.ask(
            "POST",
            "/api/repos/create",
            b"0\r\n\r\n",
            w.owner,
            content_length="5",
            transfer_encoding="chunked",
        ),
    )
    yield Attack(
        "bodies",
        "YAML: tags without a value to build, keys that stand twice, 1:1:1:… of 100,000 parts",
        lambda w: [
            yaml(text)(w)
            for text in (
                "f: !!bool x",
                "e: !!int ''",
                "c: !!timestamp x",
                "a: 1\na: 2",
                "a: !!int " + "1:" * 100_000 + "1",
            )
        ],
    )
    yield Attack(
        "bodies",
        "1,500 words, tags, owners and items of a search",
        lambda w: [
            w.ask("GET", path)
            for path in (
                "/api/models?search=" + "a+" * 1500,
                "/api/models?filter=" + "a," * 1500,
                "/api/collections?" + "owner=a&" * 1500,
                "/api/collections?" + "item=models/a/b&" * 1500,
            )
        ],
    )
    yield Attack(
        "bodies",
        "patterns that make a backtracking matcher try everything, by nobody and by somebody",
        lambda w: [
            w.ask("POST", "/api/models/me/open/preupload/main", ignoring("*a" * 500), token)
            for token in (None, w.owner)
        ],
        frozenset({200}),
    )
    yield Attack(
        "bodies",
        "half of a surrogate pair in a comment",
        lambda w: w.ask(
            "POST", "/api/models/me/vault/discussions/1/comment", b'{"comment": "\\ud800"}', w.owner
        ),
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
