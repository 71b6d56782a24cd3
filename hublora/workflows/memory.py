"""Memory of a step: of the GPU or, without one, of this process."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hublora.workflows.describe import peak_memory

GIB = 2**30
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_OF_A_GROUP = Path("/sys/fs/cgroup/memory.max")
_USABLE = 0.9  # of the memory that is free on a CPU; others want some too


class StepMemory:
    """Measures the highest use from its making on."""

    def __init__(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):  # not Linux, or not allowed: then it only grows
            _RESET.write_text("5")  # see proc(5): resets the peak resident set

    def peak(self) -> int:
        """Return the highest use in bytes, with what others use of the GPU."""
        import torch

        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            others = total - free - torch.cuda.memory_reserved()
            return int(torch.cuda.max_memory_reserved() + others)
        return _status("VmHWM") or peak_memory()


def memory_there_is() -> int:
    """Return the bytes that a training may use on this device, what it uses already included."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        there_is = int(free * 1024 * _USABLE) + (_status("VmRSS") or 0)
        with contextlib.suppress(OSError, ValueError):  # there is no group, or it has no limit
            there_is = min(there_is, int(_OF_A_GROUP.read_text()))
        return there_is
    import os

    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _USABLE)


def _status(name: str) -> int | None:
    """Return a size that the system tells of this process, in bytes; None if it does not."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return int(found.split()[1]) * 1024 if found else None
