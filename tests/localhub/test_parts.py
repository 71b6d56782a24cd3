"""Uploads in parts: what is believed is what is on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hublora.localhub.store.errors import Conflict, NotThere
from hublora.localhub.store.parts import Parts
from hublora.localhub.store.pointers import Pointer

SIZE = 1000
CONTENT = os.urandom(3 * SIZE)
POINTER = Pointer(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def send(parts: Parts, number: int, content: bytes) -> None:
    """Send one part."""
    part = parts.receive("repo", POINTER, number, SIZE)
    part.write(content)
    part.finish()


def slices() -> list[bytes]:
    """Return the three parts."""
    return [CONTENT[i : i + SIZE] for i in range(0, len(CONTENT), SIZE)]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (1, 2, 2, 3), (1, 2, 3, 1)])
def test_parts_in_any_order_make_the_whole(parts, order):
    for number in order:
        send(parts, number, slices()[number - 1])
    data, digest = parts.assemble("repo", POINTER, 3)
    assert data.read_bytes() == CONTENT
    assert digest == POINTER.oid


def test_a_part_that_broke_off_comes_again(parts):
    send(parts, 1, slices()[0])
    broken = parts.receive("repo", POINTER, 2, SIZE)
    broken.write(b"half")
    broken.discard()
    send(parts, 2, slices()[1])
    send(parts, 3, slices()[2])
    assert parts.assemble("repo", POINTER, 3)[1] == POINTER.oid


def test_parts_from_before_a_restart_count(parts, tmp_path):
    send(parts, 1, slices()[0])
    send(parts, 2, slices()[1])
    later = Parts(tmp_path)
    send(later, 3, slices()[2])
    assert later.assemble("repo", POINTER, 3)[1] == POINTER.oid


def test_a_part_overwritten_after_it_was_hashed_is_found_out(parts):
    for number in (1, 2, 3):
        send(parts, number, slices()[number - 1])
    send(parts, 1, b"?" * SIZE)
    data, digest = parts.assemble("repo", POINTER, 3)
    assert digest == hashlib.sha256(data.read_bytes()).hexdigest() != POINTER.oid


def test_two_writers_at_once_are_not_believed_without_reading(parts):
    first = parts.receive("repo", POINTER, 1, SIZE)
    second = parts.receive("repo", POINTER, 1, SIZE)
    second.write(b"?" * SIZE)
    first.write(slices()[0])
    first.finish()
    second.finish()
    send(parts, 2, slices()[1])
    send(parts, 3, slices()[2])
    data, digest = parts.assemble("repo", POINTER, 3)
    assert digest == hashlib.sha256(data.read_bytes()).hexdigest()


def test_nothing_is_assembled_while_a_part_is_open_or_missing(parts):
    for number in (1, 2):
        send(parts, number, slices()[number - 1])
    with pytest.raises(NotThere):
        parts.assemble("repo", POINTER, 3)
    send(parts, 3, slices()[2])
    late = parts.receive("repo", POINTER, 3, SIZE)
    with pytest.raises(Conflict):
        parts.assemble("repo", POINTER, 3)
    late.discard()
    assert parts.assemble("repo", POINTER, 3)[1] == POINTER.oid
