"""The guided tour of `hublora demo`: train, run, compose and inspect against an embedded Hub."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hublora.demo.seed import BASE, DATASET, SECOND_ADAPTER, seed
from hublora.errors import HubloraError, Interrupted
from hublora.localhub import LocalHub

ADAPTER = "demo/sketchbook-lora"
PROMPTS = ("a drawing of a purple cat", "a drawing of an orange mushroom")


@dataclass(frozen=True)
class Stop:
    """One stop of the tour.

    Attributes:
        title: Heading of the stop.
        command: Command line as a person types it, split into words.
    """

    title: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class TourResult:
    """The files that the tour made.

    Attributes:
        folder: Folder of the Hub's data, the run and the images.
        images: Description -> path of each image, and of the card.
        seconds: Duration of the tour in seconds.
    """

    folder: Path
    images: dict[str, Path]
    seconds: float


def stops(run: str, resume: bool = False) -> list[Stop]:
    """Return the stops of the tour in order.

    Args:
        run: Run folder, relative to the demo's folder.
        resume: Whether to resume a training that was interrupted.
    """
    validation = [part for prompt in PROMPTS for part in ("--validation-prompt", prompt)]
    return [
        Stop(
            "Make and share: train on a dataset from the Hub, push, verify",
            (
                "hublora", "train", "--base", BASE, "--dataset", DATASET,
                *TRAINING, *validation, "--num-validation-images", "2",
                "--output-dir", run, "--push-to-hub", "--hub-model-id", ADAPTER,
                *(("--resume",) if resume else ()),
            ),
        ),
        Stop("Use: generate with the adapter by its repo id", (
            "hublora", "run", ADAPTER, "a drawing of a teal heart",
            "--num-images", "4", "--grid", "-o", "teal-heart",
        )),
        Stop("Compose: two adapters as a weighted sum", (
            "hublora", "run", f"{ADAPTER}:0.8", f"{SECOND_ADAPTER}:0.8",
            "a drawing of a blue house", "--num-images", "4", "--grid", "-o", "composed",
        )),
        Stop("Inspect: facts about an adapter without downloading it", (
            "hublora", "inspect", ADAPTER,
        )),
    ]  # fmt: skip


# Outlines and eyes are fine detail, which needs the convolutions; two minutes on two cores.
TRAINING = (
    "--rank", "16", "--set", "adapter.conv_rank=16", "--learning-rate", "3e-3",
    "--train-batch-size", "8", "--max-train-steps", "700", "--caption-dropout", "0.1",
)  # fmt: skip


def take_tour(folder: Path, say: Callable[[str], None]) -> TourResult:
    """Start an embedded Hub in `folder`, run every stop against it and stop the Hub.

    Args:
        folder: Folder for all files; the Hub of an earlier demo in it is used again.
        say: Called with each line to print.

    Raises:
        HubloraError: A command failed.
    """
    started = time.monotonic()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    say("Starting a Hub on this machine with a tiny base model and two small datasets …")
    run, resume = _choose_run(folder, "runs/sketchbook-lora")
    if resume:
        say(f"Resuming the interrupted training in {run}.")
    with LocalHub.start(folder / "hub", user="demo") as hub:
        seed(folder / "hub")  # after the start, so that the first user is the one who pushes
        environment = {**os.environ, **hub.environ(), **_caches(folder)}
        for number, stop in enumerate(stops(run, resume), start=1):
            say(f"\n{number}. {stop.title}\n$ {shlex.join(stop.command)}")
            _run(stop, folder, environment)
    gallery = folder / run / "images"
    images = {
        "before and after": gallery / "before-after.png",
        "validation sheet": gallery / "validation.png",
        "loss plot": folder / run / "training" / "loss.png",
        "teal heart by id": _newest(folder / "teal-heart", "*grid*.png"),
        "two adapters composed": _newest(folder / "composed", "*grid*.png"),
        "card": folder / run / "README.md",
    }
    return TourResult(folder, images, time.monotonic() - started)


def _run(stop: Stop, folder: Path, environment: dict[str, str]) -> None:
    """Run a command as it was printed, by this very installation."""
    command = [sys.executable, "-m", *stop.command]
    status = _wait(subprocess.Popen(command, cwd=folder, env=environment))
    if status in (130, -signal.SIGINT):
        raise Interrupted(
            "The demo was interrupted.", "Run the same command again to resume it.", None
        )
    if status:
        raise HubloraError(
            "The demo stopped because this command failed; its message is above.",
            "Report it with the output of: pip list",
        )


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status; the process handles a Ctrl-C and saves a checkpoint first."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            if not sys.stdin.isatty():  # a terminal sends it to the process too
                process.send_signal(signal.SIGINT)


def _caches(folder: Path) -> dict[str, str]:
    """Return variables that put the caches into the folder, so that deleting it removes all."""
    return {"HF_HOME": str(folder / "cache" / "hf"), "HUBLORA_CACHE": str(folder / "cache")}


def _choose_run(folder: Path, name: str) -> tuple[str, bool]:
    """Return a run folder, and whether it has checkpoints of a training that was interrupted."""
    candidate, number = name, 1
    while (folder / candidate / "README.md").exists():
        number += 1
        candidate = f"{name}-{number}"
    return candidate, any((folder / candidate).glob("checkpoint-*"))


def _newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
