"""Paths and names that lead out of where they belong."""

from __future__ import annotations

from collections.abc import Iterator

from .world import Attack, put

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
# fmt: on


def paths() -> Iterator[Attack]:
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
