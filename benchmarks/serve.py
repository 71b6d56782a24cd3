"""Requests with different adapters in one batch, beside the same adapter and beside one by one.

    python benchmarks/serve.py [--device cuda] [--base FOLDER] [--requests 8] [--rounds 5]

The same requests, each with an adapter of its own (rank 16, attention): all at once to the engine
of `hublora serve`; all at once with one adapter; one after the other to the engine; and one after
the other with plain diffusers, every adapter loaded beforehand and `set_adapters` between them.
Each round runs all four; a ratio is of medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BASE = ROOT / "hublora" / "demo" / "assets" / "tiny-sd"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--base", default=str(BASE))
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        times = _measure(args, Path(folder))
    print("| what | images per second | of it one by one with diffusers |\n|---|---|---|")
    slowest = statistics.median(times["one by one, diffusers"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"| {name} | {args.requests / median:.2f} | {slowest / median:.2f} |")
    same, mixed = (statistics.median(times[name]) for name in ("one adapter", "each its own"))
    print(f"\nA batch of different adapters: {same / mixed:.2f} of a batch of one adapter.")


def _measure(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    from hublora.serve.engine import Engine
    from hublora.serve.settings import EngineSettings

    engine = Engine(args.base, EngineSettings(args.device, most_requests=args.requests))
    files = _adapters(engine.pipeline, folder, args.requests)
    diffusers = _plain_pipeline(args, files)
    ways: dict[str, Callable[[], object]] = {
        "each its own": lambda: _together(engine, args.steps, files),
        "one adapter": lambda: _together(engine, args.steps, files[:1] * args.requests),
        "one by one, engine": lambda: [_together(engine, args.steps, [one]) for one in files],
        "one by one, diffusers": lambda: [
            _with_adapter(diffusers, args.steps, index) for index in range(len(files))
        ],
    }
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    engine.close()
    return times


def _adapters(pipe: Any, folder: Path, count: int) -> list[Path]:
    from hublora.families import family_of_pipeline
    from tests.lora import random_adapter, save_adapter

    family = family_of_pipeline(pipe)
    targets = {family.denoiser: family.default_targets[family.denoiser]}
    made = [random_adapter(pipe, targets, rank=16, seed=n, size=0.02) for n in range(count)]
    return [save_adapter(one, folder / str(n), "the base") for n, one in enumerate(made)]


def _together(engine: Any, steps: int, files: Sequence[Path]) -> None:
    from hublora.resolution.composition_parts import parse_weighted_refs
    from hublora.serve.requests import GenerationRequest

    requests = [
        GenerationRequest(
            "a drawing of a red cat",
            tuple(parse_weighted_refs([str(file)])),
            {"num_inference_steps": steps},
        )
        for file in files
    ]
    for future in [engine.submit(one) for one in requests]:
        future.result()


def _plain_pipeline(args: argparse.Namespace, files: Sequence[Path]) -> Any:
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    pipe = DiffusionPipeline.from_pretrained(args.base).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    for index, file in enumerate(files):
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=f"a{index}")
    return pipe


def _with_adapter(pipe: Any, steps: int, index: int) -> None:
    import torch

    pipe.set_adapters(f"a{index}")
    pipe(
        "a drawing of a red cat",
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(index),
    )


if __name__ == "__main__":
    main()
