"""Keeps libraries quiet while they load: their bars, and what they say of software nobody needs.

Warnings about what is loaded stay. Whoever asked for another verbosity gets it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# hublora's images go through Pillow, and diffusers imports these classes whether used or not.
_NEEDLESS = "requires torchvision (not installed)"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Show no bars of diffusers and transformers, and nothing about a missing torchvision."""
    from diffusers.utils import logging as of_diffusers
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as of_transformers

    downloads_were_quiet = are_progress_bars_disabled()  # transformers' switch turns these too
    libraries = [
        library for library in (of_diffusers, of_transformers) if library.is_progress_bar_enabled()
    ]
    handlers = logging.getLogger("transformers").handlers
    for library in libraries:
        library.disable_progress_bar()
    for handler in handlers:
        handler.addFilter(_needed)
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()
        if downloads_were_quiet:
            disable_progress_bars()
        for handler in handlers:
            handler.removeFilter(_needed)


def _needed(record: logging.LogRecord) -> bool:
    return _NEEDLESS not in record.getMessage()
