"""One side of `train.py`, alone in its process: trains as a job says and reports what it took.

python benchmarks/train_side.py JOB.json REPORT.json
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LEARNING_RATE = 1e-4
SCHEDULE = "cosine"
MAX_GRAD_NORM = 1.0
SEED = 0
NEVER = 10**9


@dataclass(frozen=True)
class Job:
    """What is to be trained, and by whom.

    Attributes:
        side: "hublora" or "reference".
        reference: The diffusers script.
        base: Folder of the pipeline.
        images: Folder with metadata.jsonl.
        work: An empty folder, for the result and for caches.
        resolution: Side of the images in pixels.
        batch: Images per step.
        rank: Of the adapter.
        precision: "no" or "bf16".
        steps: Optimizer steps.
        warm_up: Steps at the start that are not timed.
        checkpointing: Whether gradients are checkpointed.
        learning_rate: At its peak.
        seed: Of everything random.
        prompt: Caption of all images, as the DreamBooth scripts want it; "" uses their own.
        settings: Further settings of hublora, under dotted keys.
        compile: Whether hublora's denoiser is compiled, block by block.
    """

    side: str
    reference: str
    base: str
    images: str
    work: str
    resolution: int
    batch: int
    rank: int
    precision: str
    steps: int
    warm_up: int
    checkpointing: bool = False
    learning_rate: float = LEARNING_RATE
    seed: int = SEED
    prompt: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    compile: bool = False


@dataclass(frozen=True)
class Report:
    """What a job took.

    Attributes:
        steps_per_second: Over the timed steps.
        peak_memory: Bytes: resident on a CPU, allocated on a GPU.
        seconds: From the first import to the saved adapter.
    """

    steps_per_second: float
    peak_memory: int
    seconds: float


class StepClock:
    """A hook of every torch optimizer: notes the time when warm-up and training end.

    Both sides step torch's AdamW, so both are timed at the same place and at no cost.
    """

    def __init__(self, warm_up: int, steps: int) -> None:
        self.warm_up, self.steps = warm_up, steps
        self.done = 0
        self.marks: list[float] = []

    def __call__(self, *step: Any) -> None:
        self.done += 1
        if self.done in (self.warm_up, self.steps):
            _wait_for_device()
            self.marks.append(time.perf_counter())

    @property
    def steps_per_second(self) -> float:
        """Timed steps per second."""
        if self.done != self.steps:
            raise SystemExit(f"{self.done} optimizer steps were done in place of {self.steps}.")
        start, end = self.marks
        return (self.steps - self.warm_up) / (end - start)


def train_hublora(job: Job) -> None:
    """Train with hublora until the adapter is saved; the gallery that follows is left out."""
    import hublora
    from hublora.progress import Event, FileWritten
    from hublora.training.config.training_config import TrainingConfig

    class Saved(Exception):
        pass

    def stop_when_saved(event: Event) -> None:
        if isinstance(event, FileWritten) and event.what == "adapter":
            raise Saved

    prompt = {"method": "dreambooth", "dreambooth.instance_prompt": job.prompt}
    config = TrainingConfig.from_settings(
        {
            "base.model": job.base,
            "data.folder": job.images,
            "data.resolution": job.resolution,
            "data.center_crop": True,
            "data.cache_dir": f"{job.work}/cache",
            "adapter.rank": job.rank,
            "optimizer.learning_rate": job.learning_rate,
            "optimizer.max_grad_norm": MAX_GRAD_NORM,
            "schedule.name": SCHEDULE,
            "schedule.max_train_steps": job.steps,
            "checkpoint.steps": NEVER,
            "output_dir": f"{job.work}/adapter",
            "train_batch_size": job.batch,
            "gradient_checkpointing": job.checkpointing,
            "mixed_precision": job.precision,
            "seed": job.seed,
            **(prompt if job.prompt else {}),
            **job.settings,
        }
    )
    if job.compile:
        _compile_blocks()
    try:
        hublora.train(config, callback=stop_when_saved)
    except Saved:
        return
    raise SystemExit("hublora saved no adapter.")


def _compile_blocks() -> None:
    """Let every session compile the repeated blocks of its denoiser, which no setting does yet."""
    from hublora.training import setup

    start = setup.start_session

    def start_compiled(*arguments: Any, **options: Any) -> Any:
        session = start(*arguments, **options)
        session.denoiser.compile_repeated_blocks()
        return session

    setup.start_session = start_compiled


def train_reference(job: Job) -> None:
    """Run the diffusers script as it is, with what it lacks on this machine put around it."""
    import runpy

    prepare_for_scripts()
    sys.argv = [job.reference, *_reference_arguments(job)]
    runpy.run_path(job.reference, run_name="__main__")


def prepare_for_scripts() -> None:
    """Put around diffusers' scripts what they lack on this machine."""
    import accelerate.tracking
    import diffusers.utils

    _provide_torchvision()
    # The scripts ask for a development version of diffusers, newer than any release.
    diffusers.utils.check_min_version = lambda minimum: None
    # They cannot run without a tracker: "all" of none is none.
    accelerate.tracking.get_available_trackers = list


SIDES: dict[str, Callable[[Job], None]] = {"hublora": train_hublora, "reference": train_reference}


def _reference_arguments(job: Job) -> list[str]:
    data = (
        {"instance_data_dir": job.images, "instance_prompt": job.prompt}
        if job.prompt
        else {"train_data_dir": job.images}
    )
    options = {
        "pretrained_model_name_or_path": job.base,
        **data,
        "cache_dir": f"{job.work}/cache",
        "output_dir": f"{job.work}/adapter",
        "resolution": job.resolution,
        "train_batch_size": job.batch,
        "max_train_steps": job.steps,
        "learning_rate": job.learning_rate,
        "lr_scheduler": SCHEDULE,
        "lr_warmup_steps": 0,
        "max_grad_norm": MAX_GRAD_NORM,
        "checkpointing_steps": NEVER,
        "mixed_precision": job.precision,
        "rank": job.rank,
        "seed": job.seed,
        "report_to": "all",
    }
    flags = ["--center_crop"] + ["--gradient_checkpointing"] * job.checkpointing
    if job.prompt and job.reference.endswith("_klein.py"):  # else it reads the layers of dev
        flags += ["--text_encoder_out_layers", "9", "18", "27"]
    return [*flags, *(f"--{name}={value}" for name, value in options.items())]


def _provide_torchvision() -> None:
    """Put the stand-in on the path if torchvision is missing.

    The libraries are imported first, so that they look for the real one and do without.
    """
    import datasets  # noqa: F401
    import diffusers.training_utils  # noqa: F401
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available() and importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(Path(__file__).parent / "stand_ins"))


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_memory() -> int:
    """Return the most memory that this process ever had, in bytes."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss may still hold the parent's peak, this one does not
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Do the job in the first file; write the report to the second."""
    started = time.perf_counter()
    from torch.optim.optimizer import register_optimizer_step_post_hook

    job_file, report_file = map(Path, sys.argv[1:])
    job = Job(**json.loads(job_file.read_text()))
    clock = StepClock(job.warm_up, job.steps)
    register_optimizer_step_post_hook(clock)
    SIDES[job.side](job)
    report = Report(clock.steps_per_second, _peak_memory(), time.perf_counter() - started)
    report_file.write_text(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
