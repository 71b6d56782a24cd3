"""Programs in processes of their own, forked from one that has loaded the libraries.

What a test proves with a process (it is killed, interrupted, has its own memory) does not need the
seconds in which torch, diffusers and transformers are imported. Tests about the start itself, or
about what is read while importing (`HF_…` variables), start Python instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

# What a training and a run on a Stable Diffusion pipeline import, by names that need no sys.path
# of pytest's.
LIBRARIES = [
    "hublora.cli.errors",
    "hublora.cli.run",
    "hublora.cli.train",
    "hublora.data",
    "hublora.workflows.run_batch",
    "hublora.workflows.train.dry_run",
    "hublora.workflows.train.train",
    "accelerate",
    "datasets",
    "diffusers.loaders.peft",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.schedulers.scheduling_ddpm",
    "peft",
    "torch._dynamo",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
]


class Forked:
    """A program in a process of its own, as `subprocess.Popen` has it; what it prints lies in
    files, so that nobody has to read it."""

    def __init__(
        self,
        program: Callable[[], object],
        args: list[str],
        folder: Path,
        env: dict[str, str] | None = None,
    ) -> None:
        self._printed = [Path(tempfile.mkstemp(dir=folder.parent)[1]) for _ in range(2)]
        environ = {**os.environ, **(env or {})}
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_enter, args=(program, args, folder, environ, self._printed)
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._printed[0].read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What it has told so far."""
        return self._printed[1].read_text("utf-8")

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it as a power cut would, and wait until it has ended."""
        self._process.kill()
        self._process.join()

    def wait_until(self, met: Callable[[], bool]) -> None:
        """Wait for something that it does before it ends."""
        while not met():
            if self.returncode is not None and not met():
                raise AssertionError(f"ended with {self.returncode}: {self.stderr}")
            time.sleep(0.005)

    def finish(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Wait until it has ended by itself."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise AssertionError(f"still running after {timeout} s: {self.stderr}")
        return subprocess.CompletedProcess((), self.returncode, self.stdout, self.stderr)


def start_libraries() -> None:
    """Start the process that loads the libraries; its surroundings are those of this moment."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(LIBRARIES)
    forkserver.ensure_running()


def hublora(args: list[str], folder: Path, env: dict[str, str] | None = None) -> Forked:
    """Start `hublora …` in a folder, with changed environment variables."""
    return Forked(_hublora, ["hublora", *args], folder, env)


def _hublora() -> None:
    from hublora.cli.main import run

    run()


def _enter(
    program: Callable[[], object],
    args: list[str],
    folder: Path,
    environ: dict[str, str],
    printed: list[Path],
) -> None:
    """Make the forked process look as a new one, and run the program."""
    # A shell without job control lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in enumerate(printed, start=1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    os.environ.clear()
    os.environ |= environ
    os.chdir(folder)
    sys.argv = args
    program()
