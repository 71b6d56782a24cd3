"""What does each trick of the training loop save, and which were left out?

    python benchmarks/tricks.py
    python benchmarks/tricks.py --shape sd15 --steps 6 --rounds 1

Every variant changes one thing of the training as it is, and runs in a process of its own, in turns
with the others. Printed are, as a Markdown table, the medians over the rounds of a step's time (CPU
time of the process, or wall time on a GPU), of the peak memory, and their ratios to the training as
it is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from train_inputs import save_images, sd15_base, tiny_base

from hublora import TrainingConfig
from hublora.progress import no_callback
from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.session import Session
from hublora.workflows.train.dry_run import trial
from hublora.workflows.train.prepare import PreparedRun, prepare_run

WARM_UP = 3
Change = Callable[[Session, PreparedRun], Callable[[], None] | None]
"""Changes a session; may return what is then also done before each step."""


def nothing(session: Session, ready: PreparedRun) -> None:
    """Leave the training as it is."""


def encode_again(session: Session, ready: PreparedRun) -> Callable[[], None]:
    """Encode a batch of images and captions before each step, as the diffusers script does."""
    pipe, family, config = ready.pipe, ready.base.family, ready.config
    device, batch = session.accelerator.device, config.train_batch_size
    for name in (family.vae, *family.text_encoders):
        getattr(pipe, name).to(device)
    side = config.data.resolution or family.resolution(pipe)
    captions = [ready.source.examples[index].captions[0] for index in range(batch)]
    pixels = torch.zeros(batch, 3, side, side, device=device, dtype=getattr(pipe, family.vae).dtype)

    @torch.no_grad()
    def encode() -> None:
        family.encode_images(pipe, pixels)
        family.encode_prompts(pipe, captions)

    return encode


def plain_adamw(session: Session, ready: PreparedRun) -> None:
    """Let AdamW update one tensor after the other instead of all in one kernel."""
    for group in session.optimizer.param_groups:
        group["fused"], group["foreach"] = False, False


def foreach_adamw(session: Session, ready: PreparedRun) -> None:
    """Let AdamW update all tensors operation by operation."""
    for group in session.optimizer.param_groups:
        group["fused"], group["foreach"] = False, True


def channels_last(session: Session, ready: PreparedRun) -> None:
    """Lay the denoiser's weights out with the channels last."""
    session.denoiser.to(memory_format=torch.channels_last)


def compile_blocks(session: Session, ready: PreparedRun) -> None:
    """Compile the transformer blocks, each alone (regional compilation)."""
    from diffusers.models.attention import BasicTransformerBlock

    for module in session.denoiser.modules():
        if isinstance(module, BasicTransformerBlock):
            module.compile()


def checkpointing(session: Session, ready: PreparedRun) -> None:
    """Compute activations again in the backward pass instead of keeping them."""
    session.accelerator.unwrap_model(session.denoiser).enable_gradient_checkpointing()


VARIANTS: dict[str, tuple[Change, str]] = {
    "as it is": (nothing, "cached latents and prompts, fused AdamW"),
    "encode again": (encode_again, "images and captions are encoded at every step"),
    "AdamW, one tensor at a time": (plain_adamw, "not fused"),
    "AdamW, foreach": (foreach_adamw, "not fused"),
    "channels last": (channels_last, "weights laid out for convolutions"),
    "compiled blocks": (compile_blocks, "regional `torch.compile`; the first steps not counted"),
    "gradient checkpointing": (checkpointing, "activations are computed twice"),
}


def measure(variant: str, base: str, images: str, batch: int, side: int, steps: int) -> None:
    """Train with one variant and print a step's seconds and the peak of memory as JSON."""
    settings = {
        "base.model": base,
        "data.folder": images,
        "data.resolution": side,
        "data.crop_variants": 1,
        "adapter.rank": 16,
        "train_batch_size": batch,
        "schedule.max_train_steps": WARM_UP + steps,
        "output_dir": tempfile.mkdtemp(),
    }
    ready = prepare_run(TrainingConfig.from_settings(settings), None, no_callback)
    clock = time.monotonic if torch.cuda.is_available() else time.process_time
    with trial(ready, len(ready.source.examples)) as (session, _):
        before = VARIANTS[variant][0](session, ready) or (lambda: None)
        taken = []
        events = (event for event in train(session) if isinstance(event, StepDone))
        for _ in range(WARM_UP + steps):
            started = clock()
            before()
            next(events).loss.item()
            taken.append(clock() - started)
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": median(taken[WARM_UP:]), "peak": peak}))


def report(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table."""
    usual = {key: median(one[key] for one in results["as it is"]) for key in ("seconds", "peak")}
    print("| variant | ms a step | × | peak, MiB | × | |\n| --- | --- | --- | --- | --- | --- |")
    for variant, runs in results.items():
        found = {key: median(one[key] for one in runs) for key in usual}
        times = found["seconds"] / usual["seconds"]
        size = found["peak"] / usual["peak"]
        print(
            f"| {variant} | {1000 * found['seconds']:.1f} | {times:.2f} "
            f"| {found['peak'] / 2**20:.0f} | {size:.2f} | {VARIANTS[variant][1]} |",
            flush=True,
        )


def main() -> None:
    """Measure all variants in turns, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=("tiny", "sd15"), default="tiny")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(*json.loads(options.one))
        return
    tiny = options.shape == "tiny"
    batch, side = (8, 64) if tiny else (1, 256)
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        base = (tiny_base if tiny else sd15_base)(Path(folder) / "base")
        images = save_images(Path(folder) / "images", 16, side)
        for _ in range(options.rounds):
            for variant, runs in results.items():
                job = [variant, str(base), str(images), batch, side, options.steps]
                command = [sys.executable, __file__, "--one", json.dumps(job)]
                environment = {**os.environ, "HUBLORA_CACHE": f"{folder}/cache"}
                done = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, text=True, check=True
                )
                runs.append(json.loads(done.stdout.splitlines()[-1]))
                print(variant, runs[-1], file=sys.stderr, flush=True)
    report(results)


if __name__ == "__main__":
    main()
