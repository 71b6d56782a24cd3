"""What is known of an image's bytes before a decoder sees them."""

from __future__ import annotations

import io
from typing import IO

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def is_heic(file: IO[bytes]) -> bool:
    """Return whether a file starts as HEIC images do."""
    file.seek(0)
    head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS


def without_text(file: IO[bytes]) -> IO[bytes]:
    """Return a PNG without its texts, such as prompts and workflows; any other file as it is.

    Pillow refuses a PNG whose texts are large, though its pixels are intact.

    Args:
        file: Seekable file at its start; a PNG without texts is returned at its start, too.
    """
    spans, has_text = _chunks(file)
    file.seek(0)
    if not has_text:
        return file
    kept = io.BytesIO()
    for start, end in spans:
        file.seek(start)
        kept.write(file.read(end - start))
    kept.seek(0)
    return kept


def _chunks(file: IO[bytes]) -> tuple[list[tuple[int, int]], bool]:
    """Return the (start, end) of all of a PNG but its texts, in bytes, and whether it has texts."""
    if file.read(len(_PNG)) != _PNG:
        return [], False
    at, spans, has_text = len(_PNG), [(0, len(_PNG))], False
    while len(head := file.read(8)) == 8:
        end = at + 12 + int.from_bytes(head[:4], "big")
        if head[4:] in _TEXT_CHUNKS:
            has_text = True
        else:
            spans.append((at, end))
        at = end
        file.seek(at)
    return spans, has_text
