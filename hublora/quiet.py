"""Silences progress bars and irrelevant notices of libraries while they load a model.

Warnings about the model itself stay, as does a verbosity that the user has set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hublora.module_lock import MODULE_LOCK

# diffusers imports these classes whether they are used or not; hublora reads images with Pillow.
# And it names an empty list of modules when it reads a single file.
_IRRELEVANT = ("requires torchvision (not installed)", "should be kept in float32: []")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Disable progress bars of diffusers and transformers and the notice about torchvision.

    One thread at a time loads: these switches, and what loading changes in torch, are global.
    """
    with MODULE_LOCK, _quiet():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    from diffusers.utils import logging as of_diffusers
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as of_transformers

    bars_were_disabled = are_progress_bars_disabled()  # transformers' switch changes these too
    libraries = [
        library for library in (of_diffusers, of_transformers) if library.is_progress_bar_enabled()
    ]
    loggers = ("transformers", "diffusers")
    handlers = [one for name in loggers for one in logging.getLogger(name).handlers]
    for library in libraries:
        library.disable_progress_bar()
    for handler in handlers:
        handler.addFilter(_is_relevant)
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()
        if bars_were_disabled:
            disable_progress_bars()
        for handler in handlers:
            handler.removeFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _IRRELEVANT)
