"""The one table that turns exceptions into a sentence; what is not in it keeps its traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from hublora.errors import HubloraError, Interrupted

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130  # as shells count a SIGINT


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return the sentence for a known failure and the exit status, None for a defect."""
    for kind, sentence, status in _TABLE:
        if isinstance(error, kind):
            text = sentence(error)
            return (text, status) if text else None
    return None


def wants_traceback() -> bool:
    """Tell whether `HUBLORA_DEBUG` asks for tracebacks."""
    return os.environ.get("HUBLORA_DEBUG", "") not in ("", "0")


def _memory(error: BaseException) -> str | None:
    if type(error).__name__ != "OutOfMemoryError" and not isinstance(error, MemoryError):
        return None
    return (
        "The device ran out of memory. To train, lower --train-batch-size or --resolution, or add "
        "--gradient-checkpointing; to generate, lower --width and --height, or add --offload model "
        "and --tiled-vae."
    )


def _system(error: BaseException) -> str | None:
    assert isinstance(error, OSError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "The disk is full. Free some space and repeat the command; what is saved is good."
    if isinstance(error, PermissionError):
        return f"{error.filename} may not be written or read. Choose another place."
    if error.filename and error.strerror:
        return f"{error.filename} cannot be used: {error.strerror.lower()}. Choose another place."
    return None


_Table = tuple[tuple[type[BaseException], Callable[[BaseException], "str | None"], int], ...]

# The first match decides.
_TABLE: _Table = (
    (Interrupted, str, EXIT_INTERRUPTED),
    (HubloraError, str, EXIT_FAILURE),
    (KeyboardInterrupt, lambda _: "Stopped.", EXIT_INTERRUPTED),
    (OSError, _system, EXIT_FAILURE),
    (MemoryError, _memory, EXIT_FAILURE),
    (RuntimeError, _memory, EXIT_FAILURE),
)
