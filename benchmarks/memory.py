"""Does a process grow that changes its adapters all day?

    python benchmarks/memory.py [--changes 2000]

Each way of changing adapters in a process of its own, on a small pipeline of Stable Diffusion's
architecture with random weights: the memory of the process at every tenth of the changes, an image
of one step after every tenth change.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WAYS = {
    "weights": "other weights of two adapters: `use`",
    "memory": "another of three adapters, all in memory: `use`",
    "disk": "another of three adapters, read from disk each time: `cache_bytes=0`",
    "ranks": "the same, of ranks 8, 24 and 40: buffers are allocated anew",
    "modes": "sum, switch and composite of two adapters, one with a moving weight",
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--only", choices=WAYS, help="one way")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # this process measures: a way
    args = parser.parse_args()
    if args.measure:
        with tempfile.TemporaryDirectory() as folder:
            measure(args.measure, args.changes, Path(folder))
        return
    print("| what | after a tenth, MiB | least | most | at the end | growth |\n|" + "---|" * 6)
    for way, what in WAYS.items():
        if args.only in (None, way):
            command = [sys.executable, __file__, "--changes", str(args.changes), "--measure", way]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            sizes = [float(size) for size in output.split()]
            first, last = sizes[1], sizes[-1]
            print(
                f"| {what} | {first:.1f} | {min(sizes[1:]):.1f} | {max(sizes[1:]):.1f} "
                f"| {last:.1f} | {100 * (last / first - 1):+.2f} % |",
                flush=True,
            )


def measure(way: str, changes: int, folder: Path) -> None:
    """Change adapters, and print the resident memory in MiB before it and at each tenth."""
    sys.path.insert(0, str(ROOT))
    import torch
    from diffusers import StableDiffusionPipeline

    import hublora
    from tests.lora import ATTENTION, random_adapter, save_adapter
    from tests.tiny import save_pipeline

    base = str(save_pipeline(folder / "base", width=64))
    plain = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    targets = {"unet": (*ATTENTION, "conv1"), "text_encoder": ("q_proj", "fc1")}
    refs = []
    for seed in range(3):
        rank = 8 + 16 * seed if way == "ranks" else 24
        adapter = random_adapter(plain, targets, rank=rank, seed=seed, size=0.01)
        refs.append(str(save_adapter(adapter, folder / str(seed)).parent))
    del plain
    pipe = hublora.load(
        *refs[:2], base=base, cache_bytes=0 if way in ("disk", "ranks") else 1 << 30
    )
    for number in range(changes + 1):
        if number % (changes // 10) == 0:
            print(_resident(), flush=True)
        change(pipe, way, refs, number)
        if number % 10:
            continue
        generator = torch.Generator().manual_seed(0)
        pipe("a hill", num_inference_steps=1, output_type="latent", generator=generator)


def change(pipe: Any, way: str, refs: list[str], number: int) -> None:
    """Change the adapters of a pipeline."""
    import hublora

    one, other = number % 7 / 10, number % 5 / 10
    if way == "weights":
        hublora.use(pipe, f"{refs[0]}:{one}", f"{refs[1]}:{other}")
    elif way == "modes":
        mode = ("sum", "switch", "composite")[number % 3]
        hublora.use(pipe, *refs[:2], compose=mode, weights={"1": "0.2..0.9", "2": other})
    else:
        hublora.use(pipe, refs[number % 3])


def _resident() -> float:
    """Return the memory of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("only Linux says how much memory a process has")


if __name__ == "__main__":
    main()
