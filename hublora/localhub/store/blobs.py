"""How large blobs are, and which of them stand for large files: looked up once a process."""

from __future__ import annotations

import pygit2

from . import pointers

_FACTS: dict[str, tuple[int, pointers.Pointer | None]] = {}
_MAX_FACTS = 500_000


def blob_facts(raw: pygit2.Repository, oid: str) -> tuple[int, pointers.Pointer | None]:
    """Return size and pointer of a blob; content never changes under an id, so this is kept."""
    known = _FACTS.get(oid)
    if known is not None:
        return known
    try:
        _, size = raw.odb.read_header(pygit2.Oid(hex=oid))
    except KeyError as problem:
        raise pygit2.GitError(f"the file {oid} is missing") from problem
    pointer = (
        pointers.decode(bytes(raw.odb.read(pygit2.Oid(hex=oid))[1]))
        if size <= pointers.MAX_POINTER_BYTES
        else None
    )
    if len(_FACTS) >= _MAX_FACTS:
        _FACTS.clear()
    _FACTS[oid] = (size, pointer)
    return size, pointer
