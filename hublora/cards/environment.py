"""Says what a training ran on, without saying whose machine it was."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PACKAGES = ("hublora", "torch", "diffusers", "peft", "transformers", "accelerate", "pillow")

# What is compared between two machines besides the packages, and what people call it.
_COMPARED = {
    "os": "The system",
    "python": "Python",
    "device": "The device",
    "cpu_threads": "The number of CPU threads",
}


def describe_environment(device: str | None = None) -> dict[str, str | int]:
    """Return versions and hardware, by name: no host, no user and no path.

    Only a torch that is already in use is asked about GPUs: a card is not worth importing it.

    Args:
        device: What was computed on: "cuda", "mps" or "cpu"; by default the best there is.
    """
    return {
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **_versions(),
        **_device(device),
        "cpu_cores": _cores(),
    }


def drift(then: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, ...]:
    """Return what is not as it was, one sentence each; what only one of them knows counts too."""
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
