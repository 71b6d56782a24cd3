"""The grammar of everything that outsiders name: owners, repos, paths, revisions, object ids.

Every function takes the decoded text once, returns it unchanged when it is good, and raises
`Malformed` when it is not. Nothing decodes twice, so `%252e` stays a strange file name.
"""

from __future__ import annotations

import re
import unicodedata

from .errors import InvalidPath, Malformed

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[A-Za-z0-9_][\w.+@/-]{0,254}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_RESERVED_OWNERS = (
    "api datasets spaces models collections health static settings login logout join new docs"
)
MAX_PATH_BYTES = 1024
MAX_SEGMENT_BYTES = 255


def check_name(name: object, what: str = "name") -> str:
    """Return `name` if it can name a user or a repo, by `validate_repo_id` of huggingface_hub."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Malformed(
            f"Invalid {what}: use letters, digits, '-', '_' and '.', start and end with a letter,"
            " a digit or '_', at most 96 characters."
        )
    if "--" in name or ".." in name:
        raise Malformed(f"Invalid {what}: '--' and '..' are not allowed.")
    if name.lower().endswith((".git", ".ipynb")):
        raise Malformed(f"Invalid {what}: it cannot end in '.git' or '.ipynb'.")
    return name


def check_repo_id(name: str) -> str:
    """Return `name` if it is `owner/name`."""
    owner, slash, short = name.partition("/")
    check_name(owner, "owner")
    if not slash:
        raise Malformed(f"Invalid repo id: '{name}'; OWNER/NAME is wanted.")
    check_name(short, "repo name")
    return name


def check_owner(name: object) -> str:
    """Return `name` if it can name a user or an organisation."""
    good = check_name(name, "user name")
    if good.lower() in _RESERVED_OWNERS.split():
        raise Malformed(f"Invalid user name: '{good}' is taken by the Hub itself.")
    return good


def check_path(path: object) -> str:
    """Return `path` if it can be the path of a file or folder inside a repo."""
    if not isinstance(path, str) or not path:
        raise InvalidPath("Invalid path: it is empty.")
    if path.startswith("/") or "\\" in path or _CONTROL.search(path):
        raise InvalidPath("Invalid path: no leading '/', no '\\', no control characters.")
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise InvalidPath("Invalid path: it is not Unicode text.") from problem
    if len(encoded) > MAX_PATH_BYTES:
        raise InvalidPath(f"Invalid path: longer than {MAX_PATH_BYTES} bytes.")
    for segment in path.split("/"):
        _check_segment(segment)
    return path


def _check_segment(segment: str) -> None:
    if segment in ("", ".", ".."):
        raise InvalidPath("Invalid path: empty, '.' and '..' segments are not allowed.")
    if len(segment.encode("utf-8")) > MAX_SEGMENT_BYTES:
        raise InvalidPath(f"Invalid path: a segment is longer than {MAX_SEGMENT_BYTES} bytes.")
    # What a case-folding, dot-trimming or format-character-blind file system reads as `.git`
    # would let a clone write into its own repository (CVE-2014-9390).
    visible = "".join(c for c in segment if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", visible).casefold().split(":")[0].rstrip(" .")
    if folded in (".git", "git~1", "", ".."):
        raise InvalidPath("Invalid path: '.git' is not allowed.")


def check_revision(revision: object) -> str:
    """Return `revision` if it can name a branch, a tag, a ref or a commit."""
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        raise Malformed("Invalid revision: not the name of a branch, a tag or a commit.")
    if ".." in revision or "//" in revision or "@{" in revision:
        raise Malformed("Invalid revision: not the name of a branch, a tag or a commit.")
    if any(part.startswith(".") or part.endswith((".lock", ".")) for part in revision.split("/")):
        raise Malformed("Invalid revision: not the name of a branch, a tag or a commit.")
    if revision.endswith("/"):
        raise Malformed("Invalid revision: not the name of a branch, a tag or a commit.")
    return revision


def check_new_branch(name: object) -> str:
    """Return `name` if a branch or a tag may be called so: no commit id, no `refs/…`."""
    good = check_revision(name)
    if good.startswith("refs/") or good == "HEAD" or _COMMIT.fullmatch(good):
        raise Malformed("Invalid name: it would be mistaken for a commit or a special ref.")
    return good


def check_sha256(oid: object) -> str:
    """Return `oid` if it is the hex sha256 that names a large file."""
    if not isinstance(oid, str) or not _SHA256.fullmatch(oid):
        raise Malformed("Invalid object id: 64 hexadecimal digits are wanted.")
    return oid


def check_size(size: object) -> int:
    """Return `size` if it can be the size of a file."""
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**50:
        raise Malformed("Invalid size: a whole number of bytes is wanted.")
    return size
