"""Says what a training ran on, without saying whose machine it was."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("hublora", "torch", "diffusers", "peft", "transformers", "accelerate")


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
    if torch is None or kind == "cpu":
        return {"device": _cpu()}
    if kind != "mps" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return {
            "device": properties.name,
            "device_count": torch.cuda.device_count(),
            "device_memory": int(properties.total_memory),
        }
    if torch.backends.mps.is_available():
        return {"device": f"Apple GPU ({_cpu()})"}
    return {"device": _cpu()}


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
