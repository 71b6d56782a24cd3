"""Decodes every image once before the training and caches the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hublora.data.checked_json import read_checked, write_checked
from hublora.data.examples import Example, Skipped
from hublora.errors import DataError

FORMAT = 4

# Of the longer side to the shorter. Resized to cover a square of 1024, an image then has at most
# 32 megapixels; one of 30,000×10 would have 3,000.
MAX_RATIO = 32

# Start of the clauses about files that may be readable the next time.
UNREADABLE = "cannot be read"

Item = TypeVar("Item")
Result = TypeVar("Result")


def scan_images(
    examples: Sequence[Example],
    fingerprint: str,
    cache_root: Path,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Example], list[Skipped]]:
    """Return the examples whose images decode, with their sizes, and the others as skipped.

    Args:
        examples: Images to decode.
        fingerprint: Hash of the images, under which the result is cached.
        cache_root: Root folder of the cache.
        workers: Threads that decode; 0: one per processor, since nothing else runs yet.
        progress: Called with (done, total) in images.
    """
    from hublora.data.images import decoders

    path = cache_root / "image_checks" / f"{fingerprint}.json"
    made_with = {"format": FORMAT, "decoders": decoders(), "images": len(examples)}
    saved = read_checked(path)
    seen: list[Any] = []
    if isinstance(saved, dict) and saved["made with"] == made_with:
        seen = saved["seen"]
    else:
        for found in ordered_map(_check, examples, workers or _processors()):
            seen.append(found)
            if progress:
                progress(len(seen), len(examples))
        if not any(str(found).startswith(UNREADABLE) for found in seen):
            # Without the cached result, the next run decodes again.
            with suppress(OSError):
                write_checked(path, {"made with": made_with, "seen": seen})
    usable, damaged = [], []
    for example, found in zip(examples, seen, strict=True):
        if isinstance(found, str):
            damaged.append(Skipped(example.name, found))
        else:
            sizes = list(zip(found[::2], found[1::2], strict=True))
            usable.append(replace(example, size=sizes[0], reference_sizes=tuple(sizes[1:])))
    return usable, damaged


def ordered_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Yield function(item) for each item in order, computed by `workers` threads.

    With 0 workers, the calling thread computes. At most two results per worker are queued.
    """
    if workers == 0:
        yield from map(function, items)
        return
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(workers, thread_name_prefix="images") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check(example: Example) -> list[int] | str:
    """Return [width, height] of an image and then of its references, or a clause about what is
    wrong with it."""
    from hublora.data.images import load_image, to_rgb
    from hublora.data.masks import open_mask
    from hublora.data.references import open_references

    try:
        with example.file() as file:
            image = to_rgb(load_image(file))
        check_shape(image.width, image.height)
        open_mask(replace(example, size=image.size))
        sizes = [image.size, *(one.size for one in open_references(example))]
        for width, height in sizes[1:]:
            check_shape(width, height, "has a reference image of {}×{}")
    except DataError as error:
        return error.message
    except OSError as error:
        return f"{UNREADABLE} ({error.strerror or error})"
    except ValueError as error:  # a colour space that Pillow reads and does not convert
        return f"cannot be converted to RGB ({error})"
    return [side for size in sizes for side in size]


def check_shape(width: int, height: int, clause: str = "is {}×{}") -> None:
    """Refuse an image whose crops would have next to nothing of it.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        clause: Beginning of the message, with places for both.

    Raises:
        DataError: The aspect ratio is above MAX_RATIO. The message is a clause.
    """
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(
            f"{clause.format(width, height)}, above the aspect ratio limit of {MAX_RATIO}:1"
        )
