"""Repeats from kohya's folder names, such as `10_sks dog`.

images/
  10_sks dog/   each image occurs ten times in an epoch; default caption "sks dog"
  1_dog/        each image occurs once
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hublora.data.captions import clean
from hublora.data.config import DataConfig
from hublora.data.examples import Example
from hublora.errors import DataError

# At most three digits, no leading zero: 2024_summer and 01_cats are numbered, not repeated.
_FOLDER = re.compile(r"([1-9]\d{0,2})_([^/]+)/")


def read_repeats(
    config: DataConfig, examples: Sequence[Example]
) -> tuple[Sequence[Example], list[str]]:
    """Return the examples with the repeats of their folders' names, and notes for the log.

    Args:
        config: Setting `folder_repeats`; None reads the names if all images are in such folders.
        examples: Images, named by their path inside the dataset's folder.

    Raises:
        DataError: `folder_repeats` is set and no folder has such a name.
    """
    wanted, names = config.folder_repeats, config.default_caption is None
    found = [_FOLDER.match(example.name) for example in examples]
    if wanted is None:
        if not all(found) or not found:
            return examples, []
        if _are_numbers([match[1] for match in found if match]):
            said = "The folders' numbers are read as an order; for repeats, add"
            return examples, [f"{said} --set data.folder_repeats=true"]
    elif not wanted:
        return examples, []
    elif not any(found):
        raise DataError(
            "data.folder_repeats is set, but no folder has a name such as '10_sks dog'.",
            "Remove it; --repeats 10 repeats all images.",
        )
    repeated = [
        _repeat(example, int(match[1]), match[2] if names else None) if match else example
        for example, match in zip(examples, found, strict=True)
    ]
    named = sum(
        bool(new.captions and not old.captions) for new, old in zip(repeated, examples, strict=True)
    )
    folders = Counter(match[0].rstrip("/") for match in found if match)
    listed = ", ".join(f"{name!r} ({count})" for name, count in folders.items())
    notes = [f"Images are repeated by their folders' names: {listed}"]
    if named:
        notes.append(f"{named} images without a caption get their folder's name")
    return repeated, notes


def _are_numbers(found: Sequence[str]) -> bool:
    """Return whether the numbers are 1, 2, 3, …, which is an order."""
    numbers = sorted(set(map(int, found)))
    return len(numbers) > 1 and numbers == list(range(1, len(numbers) + 1))


def _repeat(example: Example, repeats: int, name: str | None) -> Example:
    captions = (clean(name),) if name is not None else ()
    return replace(example, repeats=repeats, captions=example.captions or captions)
