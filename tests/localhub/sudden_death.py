"""Ends a process at a chosen file operation, as a power cut would."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def die_before(operation: int, folder: Path) -> Callable[[], int]:
    """Kill this process before its n-th change of a file in `folder`, from 1; 0 kills never.

    Returns:
        How many changes there have been.
    """
    count = 0

    def step(event: str, details: tuple[Any, ...]) -> None:
        nonlocal count
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
            event == "open"
            and isinstance(details[2], int)
            and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if changes and str(details[0]).startswith(str(folder)):
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    return lambda: count
