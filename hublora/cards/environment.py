"""Versions and hardware of a training, without the host, user or paths of the machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PACKAGES = ("hublora", "torch", "diffusers", "peft", "transformers", "accelerate", "pillow")

# Compared between two machines besides the packages: key -> its name in a sentence.
_COMPARED = {
    "os": "The system",
    "python": "Python",
    "device": "The device",
    "cpu_threads": "The number of CPU threads",
}


def describe_environment(device: str | None = None) -> dict[str, str | int]:
    """Return versions and hardware by name; nothing tells the host, the user or a path.

    GPUs are looked for only if torch has been imported already.

    Args:
        device: Device type of the run, "cuda", "mps" or "cpu"; None: the best available.
    """
    return {
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **_versions(),
        **_device(device),
        "cpu_cores": _cores(),
    }


def drift(then: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, ...]:
    """Return a sentence for each version or device that differs or is missing in one of them."""
    names = {**_COMPARED, **{package: package for package in PACKAGES}}
    return tuple(
        f"{name} was {_known(then.get(key))} and is {_known(now.get(key))}."
        for key, name in names.items()
        if then.get(key) != now.get(key)
    )


def _known(value: object) -> object:
    return "unknown" if value is None else value


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _device(kind: str | None) -> dict[str, str | int]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {"device": _cpu()}
    if kind == "cpu":  # sums are in another order with another number of threads
        return {"device": _cpu(), "cpu_threads": torch.get_num_threads()}
    if kind != "mps" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return {
            "device": properties.name,
            "device_count": torch.cuda.device_count(),
            "device_memory": int(properties.total_memory),
        }
    if torch.backends.mps.is_available():
        return {"device": f"Apple GPU ({_cpu()})"}
    return _device("cpu")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
