"""Does a training that is killed at any moment go on and end in the same bytes?

    python benchmarks/kills.py [--kills 20] [--methods pivotal z-image]

For each method a small training on the demo's base, and for two families of flow matching one on a
tiny pipeline with random weights, is done once without a stop. Then it is started
again and again in an empty folder with an empty cache, killed with SIGKILL at a random moment
(while it encodes, steps, writes a checkpoint, generates images or writes its result), resumed with
--resume until it ends, and compared: the weights and the recorded losses must have the same bytes.
Printed is a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Read when the libraries are imported. One thread: a process with more cannot be forked safely.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import accelerate  # noqa: F401  (imported here, so that no child has to)
import diffusers
import matplotlib.pyplot  # noqa: F401
import peft  # noqa: F401
import torch
from PIL import Image

import hublora
import hublora.workflows.train.train
from hublora.filesystem import sha256_of
from hublora.training.run_folder import HISTORY, list_checkpoints
from tests.flow_pipelines import FLOW_PIPELINES
from tools.tiny_base.make_base import BASE
from tools.tiny_base.styles import ASSETS

IMAGES = 6
COMMON = {
    "schedule.max_train_steps": 6,
    "checkpoint.steps": 2,
    "checkpoint.total_limit": 2,
    "optimizer.learning_rate": 1e-3,
    "validation.prompts": ["a drawing of a red circle"],
    "validation.num_images": 1,
    "validation.num_inference_steps": 2,
}
SUBJECT = {
    "dreambooth.instance_prompt": "a drawing of a sks circle",
    "dreambooth.prior_preservation": True,
    "dreambooth.class_prompt": "a drawing of a circle",
    "dreambooth.num_class_images": 2,
}
METHODS: dict[str, dict[str, Any]] = {
    "text-to-image": {
        "data.aspect_buckets": True,
        "data.random_flip": True,
        "data.num_workers": 2,
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "adapter.text_encoder": True,
        "adapter.dropout": 0.1,
        "adapter.ema_decay": 0.9,
        "holdout.images": 1,
        "holdout.timesteps": 2,
    },
    "dreambooth": SUBJECT,
    "textual-inversion": {"tokens.placeholders": ["<it>"]},
    "pivotal": {"tokens.placeholders": ["<it>"], "tokens.first_steps": 3},
    "z-image": {
        "method": "text-to-image",
        "data.resolution": 32,
        "adapter.trigger_words": ["drawing"],
        "objective.density": "logit_normal",
        "objective.preserve": True,
        "objective.preserve_class": "picture",
        "holdout.images": 1,
        "holdout.timesteps": 2,
    },
    "flux-dev": {
        "method": "text-to-image",
        "data.resolution": [32, 64],
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "objective.shift": "resolution",
        "objective.guidance": 3.5,
    },
}


@dataclass
class Outcome:
    """What came of the kills of one method.

    Attributes:
        moments: How many fell into each part of the training.
        same: How many ended in the same bytes.
    """

    moments: Counter[str] = field(default_factory=Counter)
    same: int = 0


def save_images(folder: Path) -> Path:
    """Save drawings of two shapes with their captions and return the folder."""
    folder.mkdir()
    for number, path in enumerate(sorted((ASSETS / "tiny-sketchbook").glob("*.png"))[:IMAGES]):
        with Image.open(path) as image:
            image.crop((0, 0, 64, 64 if number % 2 else 48)).save(folder / f"{number}.png")
        caption = "a drawing of a " + path.stem.partition("-")[2].replace("-", " ")
        (folder / f"{number}.txt").write_text(caption)
    return folder


def in_a_child(work: Callable[[], object]) -> int:
    """Do `work` in a forked process; return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(status)


def wait_for(child: int) -> bool:
    """Wait for a process; tell whether it ended well."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def save_bases(methods: list[str], folder: Path) -> dict[str, Path]:
    """Save the pipelines of the families among the methods; return the base of each method."""
    bases = dict.fromkeys(methods, BASE)
    for name in FLOW_PIPELINES.keys() & set(methods):
        bases[name] = folder / name
        FLOW_PIPELINES[name]().save_pretrained(bases[name])
    return bases


def train(method: str, base: Path, images: Path, folder: Path) -> None:
    """Train into `folder`, or go on there."""
    settings = {"method": method} | COMMON | METHODS[method]
    where = {
        "base.model": str(base),
        "data.folder": images,
        "data.cache_dir": folder.parent / "cache",
        "output_dir": folder,
    }
    config = hublora.TrainingConfig.from_settings({**settings, **where})
    hublora.train(config, resume="latest")


def learned(folder: Path) -> dict[str, str]:
    """Return the hashes of everything that must be the same."""
    files = [folder / HISTORY, *folder.glob("*.safetensors"), *folder.glob("embeddings/*")]
    return {path.name: sha256_of(path) for path in files}


def moment(folder: Path) -> str:
    """Return in which part of the training a folder was left."""
    if any(folder.glob("*.safetensors")):
        return "after the steps"
    if list_checkpoints(folder):
        return "between checkpoints"
    return "before the first checkpoint"


def measure(method: str, base: Path, kills: int, images: Path, rng: random.Random) -> Outcome:
    """Train once whole, then kill and go on as often as asked."""
    outcome = Outcome()

    def work(folder: Path) -> Callable[[], None]:
        return lambda: train(method, base, images, folder)

    with tempfile.TemporaryDirectory() as above:
        whole = Path(above, "run")
        started = time.monotonic()
        if not wait_for(in_a_child(work(whole))):
            raise SystemExit(f"{method} does not train.")
        seconds, expected = time.monotonic() - started, learned(whole)
    for number in range(kills):
        with tempfile.TemporaryDirectory() as above:
            folder = Path(above, "run")
            child = in_a_child(work(folder))
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            ended = wait_for(child)
            outcome.moments["not at all" if ended else moment(folder)] += 1
            went_on = wait_for(in_a_child(work(folder)))
            same = went_on and learned(folder) == expected
            outcome.same += same
            print(f"{method} {number + 1}: {same}", file=sys.stderr, flush=True)
    return outcome


def main() -> None:
    """Kill, compare, print."""
    parser = argparse.ArgumentParser(description="Kill trainings at random moments.")
    parser.add_argument("--kills", type=int, default=20, help="of each method")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    rng = random.Random(arguments.seed)
    names = ("before the first checkpoint", "between checkpoints", "after the steps", "not at all")
    print(f"| method | kills | {' | '.join(names)} | same bytes |")
    print("| --- | --- | " + "--- | " * len(names) + "--- |")
    with tempfile.TemporaryDirectory() as folder:
        images = save_images(Path(folder, "images"))
        bases = save_bases(arguments.methods, Path(folder))
        for method in arguments.methods:
            outcome = measure(method, bases[method], arguments.kills, images, rng)
            counts = " | ".join(str(outcome.moments[name]) for name in names)
            print(f"| {method} | {arguments.kills} | {counts} | {outcome.same} |", flush=True)


if __name__ == "__main__":
    main()
