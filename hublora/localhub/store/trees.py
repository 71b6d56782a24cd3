"""What is in a tree, read from its bytes: a page far down a large folder passes over all before it.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects#_tree_objects
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pygit2

_ENTRY = re.compile(rb"(\d+) ([^\0]+)\0(.{20})", re.DOTALL)
# Symbolic links and submodules are not followed; 100664 is what git of 2005 wrote.
_FOLDERS = frozenset({b"40000", b"040000"})
_FILES = frozenset({b"100644", b"100755", b"100664"})


class Name(NamedTuple):
    """A file or a folder of a tree of which nothing but that is known."""

    path: str
    oid: str
    is_folder: bool


def walk(raw: pygit2.Repository, tree: str, prefix: str, recursive: bool) -> Iterator[Name]:
    """Yield what can be shown, folders before what they hold; they may be deeper than our stack.

    Left out are names that are not UTF-8: no address could name them.
    """
    stack = [(prefix, _ENTRY.finditer(_content(raw, tree)))]
    while stack:
        prefix, entries = stack[-1]
        for match in entries:
            mode, name, oid = match.groups()
            is_folder = mode in _FOLDERS
            if not is_folder and mode not in _FILES:
                continue
            try:
                path = prefix + name.decode()
            except UnicodeDecodeError:
                continue
            yield Name(path, oid.hex(), is_folder)
            if recursive and is_folder:
                stack.append((f"{path}/", _ENTRY.finditer(_content(raw, oid.hex()))))
                break
        else:
            stack.pop()


def _content(raw: pygit2.Repository, tree: str) -> bytes:
    try:
        return bytes(raw.odb.read(pygit2.Oid(hex=tree))[1])
    except KeyError as problem:
        raise pygit2.GitError(f"the folder {tree} is missing") from problem
