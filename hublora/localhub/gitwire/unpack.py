"""Reading a pack as it comes from a pusher, object by object, each of bounded size.

Format: https://git-scm.com/docs/gitformat-pack. A delta's base is looked up among what was just
staged and what the repository has, so memory holds one object and its base at a time.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import IO

import pygit2
from pygit2.enums import ObjectType

from ..store.errors import Malformed, TooLarge

MAX_OBJECTS = 500_000
_KINDS = {1: ObjectType.COMMIT, 2: ObjectType.TREE, 3: ObjectType.BLOB, 4: ObjectType.TAG}
_OFFSET_DELTA, _REFERENCE_DELTA = 6, 7


class _Tape:
    """A stream that knows where it is and what it has read, and can give back."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = b""
        self._hash = hashlib.sha1(usedforsecurity=False)
        self.position = 0

    def read(self, size: int) -> bytes:
        content = self._buffer[:size]
        self._buffer = self._buffer[size:]
        if len(content) < size:
            content += self._stream.read(size - len(content))
        if len(content) < size:
            raise Malformed("The pack ended early.")
        self._hash.update(content)
        self.position += size
        return content

    def inflate(self, size: int) -> bytes:
        """Read one deflated object that says it has `size` bytes."""
        machine = zlib.decompressobj()
        content = b""
        while not machine.eof:
            chunk = self._buffer or self._stream.read(65_536)
            self._buffer = b""
            if not chunk:
                raise Malformed("The pack ended early.")
            content += machine.decompress(chunk, size + 1 - len(content))
            rest = machine.unused_data if machine.eof else machine.unconsumed_tail
            self._hash.update(chunk[: len(chunk) - len(rest)])
            self.position += len(chunk) - len(rest)
            self._buffer = rest
            if len(content) > size:
                break
        if len(content) != size:
            raise Malformed("An object of the pack is not as long as it says.")
        return content

    def check_sum(self) -> None:
        """Compare the checksum at the end."""
        expected = self._hash.digest()
        if self.read(20) != expected:
            raise Malformed("The pack's checksum is wrong.")


def unpack(stream: IO[bytes], odb: pygit2.Odb, max_object: int) -> list[tuple[ObjectType, str]]:
    """Write every object of a pack into `odb`; return kinds and ids in the order they were made.

    Raises:
        Malformed: It is not a pack, or is broken.
        TooLarge: An object has more than `max_object` bytes, or there are too many.
    """
    tape = _Tape(stream)
    signature, version, count = (tape.read(4) for _ in range(3))
    if signature != b"PACK" or int.from_bytes(version) not in (2, 3):
        raise Malformed("This is not a pack.")
    total = int.from_bytes(count)
    if total > MAX_OBJECTS:
        raise TooLarge(f"More than {MAX_OBJECTS} objects in one push.")
    objects = _Objects(odb, max_object)
    try:
        for _ in range(total):
            objects.take(tape)
        tape.check_sum()
        objects.settle()
    except (zlib.error, IndexError, pygit2.GitError) as problem:
        raise Malformed("The pack is broken.") from problem
    return objects.found


class _Objects:
    """What a pack has given so far, and the deltas whose base is still to come."""

    def __init__(self, odb: pygit2.Odb, max_object: int) -> None:
        self.found: list[tuple[ObjectType, str]] = []
        self._odb = odb
        self._max_object = max_object
        self._places: dict[int, str] = {}
        self._waiting: list[tuple[int, str, bytes]] = []

    def take(self, tape: _Tape) -> None:
        """Read the next object of the pack."""
        start = tape.position
        kind, size = _header(tape)
        if size > self._max_object:
            raise TooLarge(
                f"A file has more than {self._max_object >> 20} MB:"
                " keep it in Git LFS (`git lfs track`)."
            )
        if kind in _KINDS:
            self._keep(start, _KINDS[kind], tape.inflate(size))
            return
        if kind == _OFFSET_DELTA:
            base = self._places.get(start - _offset(tape), "")
        elif kind == _REFERENCE_DELTA:
            base = tape.read(20).hex()
        else:
            raise Malformed("The pack has an object of no known kind.")
        delta = tape.inflate(size)
        if base and base in self._odb:
            self._keep(start, *_apply(self._odb, base, delta, self._max_object))
        else:
            self._waiting.append((start, base, delta))

    def settle(self) -> None:
        """Make what the waiting deltas mean, each once its base is there."""
        while self._waiting:
            ready = [item for item in self._waiting if item[1] and item[1] in self._odb]
            if not ready:
                raise Malformed("The pack has a delta against an object that is not there.")
            for start, base, delta in ready:
                self._keep(start, *_apply(self._odb, base, delta, self._max_object))
            self._waiting = [item for item in self._waiting if item not in ready]

    def _keep(self, start: int, kind: ObjectType, content: bytes) -> None:
        self._places[start] = str(self._odb.write(kind, content))
        self.found.append((kind, self._places[start]))


def _header(tape: _Tape) -> tuple[int, int]:
    """Return kind and size of the next object."""
    byte = tape.read(1)[0]
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 0x80:
        byte = tape.read(1)[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if shift > 60:
            raise Malformed("An object of the pack says an impossible size.")
    return kind, size


def _offset(tape: _Tape) -> int:
    byte = tape.read(1)[0]
    offset = byte & 0x7F
    for _ in range(9):
        if not byte & 0x80:
            return offset
        byte = tape.read(1)[0]
        offset = (offset + 1) << 7 | byte & 0x7F
    raise Malformed("A delta of the pack says an impossible place.")


def _apply(odb: pygit2.Odb, base: str, delta: bytes, max_object: int) -> tuple[ObjectType, bytes]:
    """Return what a delta makes of its base: copies from it and bytes of its own."""
    kind, content = odb.read(pygit2.Oid(hex=base))
    source = memoryview(content)
    length, place = _varint(delta, 0)
    result_length, place = _varint(delta, place)
    if length != len(source):
        raise Malformed("A delta of the pack is for another object.")
    if result_length > max_object:
        raise TooLarge("An object of the pack is too large.")
    parts: list[memoryview] = []
    made = 0
    while place < len(delta):
        code = delta[place]
        place += 1
        if code & 0x80:
            part, place = _copy(source, code, delta, place)
        elif code:
            part = memoryview(delta)[place : place + code]
            place += code
        else:
            raise Malformed("A delta of the pack has an unknown step.")
        made += len(part)
        if made > result_length:
            raise Malformed("A delta of the pack makes more than it says.")
        parts.append(part)
    if made != result_length:
        raise Malformed("A delta of the pack makes less than it says.")
    return ObjectType(kind), b"".join(parts)


def _copy(source: memoryview, code: int, delta: bytes, place: int) -> tuple[memoryview, int]:
    """Return the piece of the base that a copying step means, and where the next step begins."""
    offset = size = 0
    for bit in range(4):
        if code & 1 << bit:
            offset |= delta[place] << 8 * bit
            place += 1
    for bit in range(3):
        if code & 0x10 << bit:
            size |= delta[place] << 8 * bit
            place += 1
    part = source[offset : offset + (size or 0x10000)]
    if len(part) != (size or 0x10000):
        raise Malformed("A delta of the pack copies from beyond its base.")
    return part, place


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80 or shift > 60:
            return value, place
