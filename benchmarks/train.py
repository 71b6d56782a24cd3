"""How fast does hublora train, and in how much memory, beside the diffusers script?

    python benchmarks/train.py --reference PATH/train_text_to_image_lora.py
    python benchmarks/train.py --reference PATH/train_text_to_image_lora.py --shape sd15 --batch 8
    python benchmarks/train.py --reference PATH/train_text_to_image_lora_sdxl.py --shape sdxl
    python benchmarks/train.py --reference PATH/train_dreambooth_lora_z_image.py --shape z-image
    python benchmarks/train.py --shape klein-4b --set base.quantize=int8 --set base.offload=blocks

The script is diffusers' `examples/text_to_image/train_text_to_image_lora.py`, `…_sdxl.py` for the
shapes of SDXL, or of `examples/dreambooth/` the one of the family for z-image, klein-4b, flux1,
qwen, krea2 and sd3 (on a CPU with one block of each kind; each also as tiny-…), as it is; without
it hublora is timed alone. `--set` is for hublora alone. Both sides train on the same base, images
and settings, in turns, each run in a process of its own and with empty caches. Printed are the
medians over the rounds, as a Markdown table, and the arithmetic of a U-Net as a share of what
matrix products reach on the device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import diffusers
import torch
from flow_bases import FLOW_BASES, save_flow_base, save_tiny_flow_base
from matrix_rate import matrix_rate, step_operations
from train_inputs import save_images, sd15_base, sdxl_base, tiny_base, tiny_xl_base
from train_side import LEARNING_RATE, MAX_GRAD_NORM, SCHEDULE, SIDES, Job, Report

GIB = 2**30
PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "huggingface_hub")


@dataclass(frozen=True)
class Shape:
    """A size of base and what it is trained with.

    Attributes:
        make_base: Saves the pipeline below a folder and returns where it is.
        batch: Images per step.
        rank: Of the adapter.
        images: How many there are.
        resolution: Side in pixels, on a CPU and on a GPU.
        steps: Optimizer steps, on a CPU and on a GPU.
        warm_up: Of these, how many are not timed.
        rounds: Runs of each side.
        prompt: Caption of all images, for shapes whose script is a DreamBooth one; "" has none.
    """

    make_base: Callable[[Path], Path]
    batch: int
    rank: int
    images: int
    resolution: Mapping[str, int]
    steps: Mapping[str, int]
    warm_up: int
    rounds: int
    prompt: str = ""


def _flow_shapes(name: str) -> dict[str, Shape]:
    """Return the shape of a family of flow matching, and the same family tiny. On a CPU the first
    has one block of each kind."""
    blocks = None if torch.cuda.is_available() else 1
    common = {"batch": 1, "rank": 16, "prompt": "a photo of a sks dog", "rounds": 1}
    return {
        name: Shape(
            make_base=partial(save_flow_base, name, blocks=blocks),
            images=4,
            resolution={"cpu": 64, "cuda": 1024},
            steps={"cpu": 3, "cuda": 25},
            warm_up=1 if blocks else 5,
            **common,
        ),
        f"tiny-{name}": Shape(
            make_base=partial(save_tiny_flow_base, name),
            images=2,
            resolution={"cpu": 32, "cuda": 32},
            steps={"cpu": 6, "cuda": 20},
            warm_up=2,
            **common,
        ),
    }


SHAPES = {
    "tiny": Shape(
        make_base=tiny_base,
        batch=8,
        rank=16,
        images=64,
        resolution={"cpu": 64, "cuda": 64},
        steps={"cpu": 120, "cuda": 400},
        warm_up=20,
        rounds=5,
    ),
    "sd15": Shape(
        make_base=sd15_base,
        batch=1,
        rank=4,
        images=8,
        resolution={"cpu": 256, "cuda": 512},
        steps={"cpu": 10, "cuda": 120},
        warm_up=2,
        rounds=3,
    ),
    "tiny-xl": Shape(
        make_base=tiny_xl_base,
        batch=2,
        rank=4,
        images=8,
        resolution={"cpu": 64, "cuda": 64},
        steps={"cpu": 12, "cuda": 100},
        warm_up=2,
        rounds=1,
    ),
    "sdxl": Shape(
        make_base=sdxl_base,
        batch=1,
        rank=16,
        images=8,
        resolution={"cpu": 256, "cuda": 1024},
        steps={"cpu": 4, "cuda": 60},
        warm_up=2,
        rounds=3,
    ),
}

SHAPES |= {key: one for name in FLOW_BASES for key, one in _flow_shapes(name).items()}


def run_side(job: Job, folder: Path) -> Report:
    """Do one job in a process of its own and return its report."""
    files = folder / "job.json", folder / "report.json"
    files[0].write_text(json.dumps(asdict(job)))
    side = Path(__file__).with_name("train_side.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HUBLORA_CACHE": job.work}
    with open(folder / "log.txt", "w+") as log:
        done = subprocess.run(
            [sys.executable, str(side), *map(str, files)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            log.seek(0)
            raise SystemExit(f"{log.read()[-4000:]}\nThe {job.side} failed.")
    return Report(**json.loads(files[1].read_text()))


def compare(template: Job, rounds: int) -> dict[str, list[Report]]:
    """Run the sides in turns; return the reports of each."""
    sides = SIDES if template.reference else ["hublora"]
    reports: dict[str, list[Report]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side, done in reports.items():
            with tempfile.TemporaryDirectory() as work:
                job = Job(**asdict(template) | {"side": side, "work": work})
                done.append(run_side(job, Path(work)))
            print(f"round {turn + 1}, {side}: {_row(done[-1])}", file=sys.stderr)
    return reports


def render(reports: Mapping[str, list[Report]], share_of_a_step: float | None) -> str:
    """Return the medians and their ratios as a Markdown table.

    Args:
        reports: Of each side.
        share_of_a_step: Of what the device can do in a second, that one step asks for; None
            where that is not counted.
    """
    speeds = {side: median(one.steps_per_second for one in runs) for side, runs in reports.items()}
    shares = {side: speed * (share_of_a_step or 0) for side, speed in speeds.items()}
    rows = {
        "steps per second": speeds,
        **({} if share_of_a_step is None else {"share of the device's matrix rate": shares}),
        "peak memory, GiB": {
            side: median(one.peak_memory / GIB for one in runs) for side, runs in reports.items()
        },
        "seconds from start to saved adapter": {
            side: median(one.seconds for one in runs) for side, runs in reports.items()
        },
    }
    lines = [f"| | {' | '.join(reports)} | ratio |", "| --- |" + " --- |" * (len(reports) + 1)]
    for name, values in rows.items():
        ours = values["hublora"]
        ratio = f"{ours / values['reference']:.2f}" if "reference" in values else ""
        cells = " | ".join(f"{value:.3g}" for value in values.values())
        lines.append(f"| {name} | {cells} | {ratio} |")
    return "\n".join(lines)


def share_of_a_step(job: Job) -> float | None:
    """Return the operations of a step over those that the device reaches in a second; None for a
    base without a U-Net."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = Path(job.base)
    if not (base / "unet").is_dir():
        return None
    unet = json.loads((base / "unet" / "config.json").read_text())
    tokens = json.loads((base / "text_encoder" / "config.json").read_text())
    asked = step_operations(
        unet, job.batch, job.resolution // 8, tokens["max_position_embeddings"], job.rank
    )
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    rate = matrix_rate(device, dtype)
    print(
        f"matrix rate {rate / 1e12:.3g} TFLOP/s, a step {asked / 1e12:.3g} TFLOP", file=sys.stderr
    )
    return asked / rate


def describe(job: Job, shape: str, rounds: int) -> str:
    """Return the settings and the machine in two lines."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{shape}: {job.resolution}×{job.resolution}, batch {job.batch}, rank {job.rank}, "
        f"mixed precision {job.precision}, gradients {_kept(job)}, AdamW at "
        f"{LEARNING_RATE} ({SCHEDULE}), gradients clipped to {MAX_GRAD_NORM}"
        f"{', blocks compiled' * job.compile}"
        f"{''.join(f', {key} {value}' for key, value in job.settings.items())}; "
        f"steps {job.warm_up + 1} to {job.steps} of each run, {rounds} rounds\n"
        f"{device}, {os.cpu_count()} cores ({platform.machine()}, {torch.get_num_threads()} "
        f"threads); Python {platform.python_version()}, {versions}"
    )


def _kept(job: Job) -> str:
    return "checkpointed" if job.checkpointing else "from kept activations"


def _row(report: Report) -> str:
    return (
        f"{report.steps_per_second:.3f} steps/s, {report.peak_memory / GIB:.2f} GiB, "
        f"{report.seconds:.0f} s in all"
    )


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says, gaps filled from the shape's own values."""
    parser = argparse.ArgumentParser(description="Time hublora against the diffusers script.")
    parser.add_argument(
        "--reference", type=Path, help="the diffusers script; hublora alone if none"
    )
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--batch", type=int, help="images of a step")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, help="optimizer steps of a run, warm-up included")
    parser.add_argument("--warm-up", type=int, help="steps at the start that are not timed")
    parser.add_argument("--rounds", type=int, help="runs of each side")
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), help="bf16 on a GPU")
    parser.add_argument("--compile", action="store_true", help="compile the blocks of hublora's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of hublora's"
    )
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    usual = {
        "batch": shape.batch,
        "resolution": shape.resolution[device],
        "steps": shape.steps[device],
        "warm_up": shape.warm_up,
        "rounds": shape.rounds,
        "mixed_precision": "bf16" if device == "cuda" else "no",
    }
    for name, value in usual.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if not 0 < arguments.warm_up < arguments.steps:
        parser.error("--warm-up must be at least 1 and below --steps")
    if arguments.reference is not None and not arguments.reference.is_file():
        parser.error(f"there is no {arguments.reference}")
    return arguments


def main() -> None:
    """Prepare base and images, compare, print."""
    arguments = parse_arguments()
    shape = SHAPES[arguments.shape]
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        template = Job(
            side="",
            reference=str(arguments.reference.resolve()) if arguments.reference else "",
            base=str(shape.make_base(Path(folder, "base"))),
            images=str(
                save_images(
                    Path(folder, "images"),
                    max(shape.images, arguments.batch),
                    arguments.resolution,
                )
            ),
            work="",
            resolution=arguments.resolution,
            batch=arguments.batch,
            checkpointing=arguments.gradient_checkpointing,
            rank=shape.rank,
            precision=arguments.mixed_precision,
            steps=arguments.steps,
            warm_up=arguments.warm_up,
            prompt=shape.prompt,
            compile=arguments.compile,
            settings=dict(one.split("=", 1) for one in arguments.set),
        )
        if shape.prompt:  # the DreamBooth scripts take every file for an image
            Path(template.images, "metadata.jsonl").unlink()
        reports = compare(template, arguments.rounds)
        share = share_of_a_step(template)
    print(describe(template, arguments.shape, arguments.rounds))
    print()
    print(render(reports, share))


if __name__ == "__main__":
    main()
