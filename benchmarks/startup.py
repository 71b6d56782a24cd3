"""How long a person waits for help: `hublora --help` beside `hf --help`, in turns.

python benchmarks/startup.py --runs 15
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def command(name: str) -> str:
    """Return the program of this environment, else the one on the path."""
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if found is None:
        raise SystemExit(f"There is no {name}: pip install -e . in this environment.")
    return found


def measure(arguments: list[str]) -> tuple[float, float]:
    """Return wall seconds, and seconds of CPU: other work on the machine spoils only the former."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="of each program")
    runs = parser.parse_args().runs
    programs = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "hublora --help": [command("hublora"), "--help"],
        "hublora train --help": [command("hublora"), "train", "--help"],
        "hf --help": [command("hf"), "--help"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for arguments in programs.values():
        measure(arguments)  # the files come from the disk once
    for _ in range(runs):
        for name, arguments in programs.items():
            times[name].append(measure(arguments))
    medians = {
        name: [statistics.median(kind) for kind in zip(*found, strict=True)]
        for name, found in times.items()
    }
    print(f"Medians of {runs} runs, in turns.\n")
    print("| program | wall, s | CPU, s |\n|---|---|---|")
    for name, (wall, cpu) in medians.items():
        print(f"| `{name}` | {wall:.3f} | {cpu:.3f} |")
    ratios = [a / b for a, b in zip(medians["hublora --help"], medians["hf --help"], strict=True)]
    print(f"\n`hublora --help` takes {ratios[0]:.2f} of the time of `hf --help`", end="")
    print(f" ({ratios[1]:.2f} of its CPU time).")


if __name__ == "__main__":
    main()
