"""Packet lines: four hex digits of length, then the line.

https://git-scm.com/docs/gitprotocol-common#_pkt_line_format
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from ..store.errors import Malformed

FLUSH = b"0000"
MAX_DATA = 65_515
DATA = 1  # the side band of a pack


def line(text: bytes | str) -> bytes:
    """Return one packet."""
    content = text.encode() if isinstance(text, str) else text
    return f"{len(content) + 4:04x}".encode() + content


def band(channel: int, content: bytes) -> bytes:
    """Return content as packets of one side band."""
    parts = [content[i : i + MAX_DATA] for i in range(0, len(content), MAX_DATA)]
    return b"".join(line(bytes([channel]) + part) for part in parts)


def read(stream: IO[bytes]) -> bytes | None:
    """Return the next packet, None for a flush or at the end.

    Raises:
        Malformed: It is not a packet.
    """
    head = stream.read(4)
    if not head:
        return None
    try:
        length = int(head, 16)
    except ValueError as problem:
        raise Malformed("This is not git's protocol.") from problem
    if length == 0:
        return None
    if not 4 <= length <= 65_520:
        raise Malformed("This is not git's protocol.")
    content = stream.read(length - 4)
    if len(content) != length - 4:
        raise Malformed("The request ended early.")
    return content


def section(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield packets up to the next flush."""
    while (content := read(stream)) is not None:
        yield content
