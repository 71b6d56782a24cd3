"""Is the loss that of diffusers' DreamBooth script, for each family of flow matching that has one?

    python benchmarks/script_losses.py --scripts PATH/diffusers/examples/dreambooth [--steps 20]

Both sides train a tiny pipeline with random weights on one image, in float32, with the same flags,
the same initial weights and the same random numbers: the script runs as it is, in a process of its
own, and what it draws at random (noise, posterior and noise levels) is answered with hublora's.
Printed is the largest relative difference of the losses over the steps, as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import torch
from train_side import prepare_for_scripts

PROMPT = "a photo of a sks dog"
RESOLUTION, RANK, LEARNING_RATE, WEIGHT_DECAY = 32, 4, 1e-2, 1e-4
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class Case:
    """A script and the flags of a comparison.

    Attributes:
        pipeline: Name of the tiny pipeline (`tests/flow_pipelines.py`).
        script: File of the script.
        flags: Further flags of the script.
        settings: The same as settings of hublora, under dotted keys.
    """

    pipeline: str
    script: str
    flags: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()


GUIDANCE = (("objective.guidance", 3.5),)
# The script of klein reads the layers of dev unless it is told the pipeline's own.
KLEIN_LAYERS = ("--text_encoder_out_layers", "9", "18", "27")
# Without the preconditioning that is the script's default: it weights the squared error by s².
SD3 = ("--precondition_outputs=0", "--max_sequence_length=256")
CASES = {
    "flux": Case("flux-dev", "flux", ("--guidance_scale=3.5",), GUIDANCE),
    "flux, schnell": Case("flux-schnell", "flux", ("--max_sequence_length=256",)),
    "flux2": Case("flux2-dev", "flux2", ("--guidance_scale=3.5",), GUIDANCE),
    "flux2-klein": Case("flux2-klein", "flux2_klein", KLEIN_LAYERS),
    "z-image": Case("z-image", "z_image"),
    "qwen-image": Case("qwen-image", "qwen_image"),
    "krea2": Case("krea2", "krea2"),
    "sd3": Case("sd3", "sd3", SD3),
}


def settings_of(case: Case, folder: Path, steps: int) -> dict[str, Any]:
    """Return the settings of hublora for a case whose base and image are in `folder`."""
    return {
        "method": "dreambooth",
        "base.model": str(folder / "base"),
        "data.folder": folder / "images",
        "data.resolution": RESOLUTION,
        "data.center_crop": True,
        "data.cache_dir": folder / "cache",
        "dreambooth.instance_prompt": PROMPT,
        "adapter.rank": RANK,
        "adapter.targets": list(TARGETS),
        "optimizer.learning_rate": LEARNING_RATE,
        "optimizer.weight_decay": WEIGHT_DECAY,
        "schedule.name": "constant",
        "schedule.max_train_steps": steps,
        "mixed_precision": "no",
        "output_dir": folder / "run",
        **dict(case.settings),
    }


def train_hublora(case: Case, folder: Path, steps: int) -> list[float]:
    """Train with hublora; save the initial weights and the random numbers; return the losses."""
    from safetensors.torch import save_file

    from hublora import TrainingConfig
    from hublora.training.events import StepDone
    from hublora.training.loop import train
    from hublora.training.rng import choose, sample_normals
    from hublora.training.setup import start_session
    from hublora.workflows.train.prepare import encode, prepare_run

    config = TrainingConfig.from_settings(settings_of(case, folder, steps))
    ready = prepare_run(config, None, lambda event: None)
    data = encode(ready.config, ready.base, ready.pipe, ready.source, ready.accelerator.device)
    session = start_session(ready.config, ready.pipe, data, ready.inputs, ready.accelerator)
    given: dict[str, torch.Tensor] = {}
    for number, parameter in enumerate(session.parameters):
        given[f"weight {number}"] = parameter.detach().clone()
    shape, generator = data.shape(0), torch.Generator()
    for step in range(steps):
        noise, posterior, _ = sample_normals(config.seed, [step], shape, generator)
        uniforms = choose(config.seed, [step], 1, data.variants, 0.0).uniforms
        given |= {f"noise {step}": noise, f"posterior {step}": posterior}
        given[f"uniforms {step}"] = uniforms
    save_file(given, folder / "given.safetensors")
    return [event.loss.item() for event in train(session) if isinstance(event, StepDone)]


def train_script(script: Path, case: Case, folder: Path, steps: int) -> None:
    """Run the script with the saved weights and random numbers; write its losses."""
    import accelerate
    import diffusers.optimization
    import diffusers.training_utils
    import transformers
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from safetensors.torch import load_file

    given, losses = load_file(folder / "given.safetensors"), []
    prepare_for_scripts()
    if case.script == "flux2":
        transformers.PixtralProcessor = transformers.AutoTokenizer  # needs torchvision
    randn_like, get_scheduler = torch.randn_like, diffusers.optimization.get_scheduler
    started = False

    def noise_like(tensor: torch.Tensor, **options: Any) -> torch.Tensor:
        return given[f"noise {len(losses)}"].view_as(tensor) if started else randn_like(tensor)

    def sample(posterior: Any, generator: Any = None) -> torch.Tensor:
        noise = given[f"posterior {len(losses)}"].view_as(posterior.mean)
        return posterior.mean + posterior.std * noise

    def density(*args: Any, **options: Any) -> torch.Tensor:
        return given[f"uniforms {len(losses)}"]

    def scheduler(name: Any, optimizer: Any, **options: Any) -> Any:
        nonlocal started
        started = True
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        with torch.no_grad():
            for number, parameter in enumerate(parameters):
                parameter.copy_(given[f"weight {number}"])
        if f"weight {len(parameters)}" in given:
            raise SystemExit(f"The script trains {len(parameters)} weights, and hublora more.")
        return get_scheduler(name, optimizer=optimizer, **options)

    torch.randn_like = noise_like
    DiagonalGaussianDistribution.sample = sample
    diffusers.training_utils.compute_density_for_timestep_sampling = density
    diffusers.optimization.get_scheduler = scheduler
    accelerate.Accelerator.log = lambda self, values, step=None: losses.append(values["loss"])
    sys.argv = [str(script), *flags_of(case, folder, steps)]
    runpy.run_path(str(script), run_name="__main__")
    (folder / "losses.json").write_text(json.dumps(losses))


def flags_of(case: Case, folder: Path, steps: int) -> list[str]:
    """Return the flags of the script for a case."""
    options = {
        "pretrained_model_name_or_path": folder / "base",
        "instance_data_dir": folder / "images",
        "instance_prompt": PROMPT,
        "output_dir": folder / "script",
        "resolution": RESOLUTION,
        "rank": RANK,
        "lora_layers": ",".join(TARGETS),
        "train_batch_size": 1,
        "max_train_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "adam_weight_decay": WEIGHT_DECAY,
        # The loss has weight 1 with both, and noise levels are answered.
        "weighting_scheme": "logit_normal" if case.script == "sd3" else "none",
        "checkpointing_steps": 10**9,
        "mixed_precision": "no",
        "seed": 0,
        "report_to": "all",
    }
    common = [f"--{name}={value}" for name, value in options.items()]
    alpha = [f"--lora_alpha={RANK}"] if "sd3" not in case.script else []
    return ["--center_crop", *common, *alpha, *case.flags]


def compare(name: str, scripts: Path, steps: int) -> tuple[float, float, float]:
    """Return the first and last loss of hublora, and the largest relative difference."""
    from flow_bases import with_long_clips
    from PIL import Image

    from tests.flow_pipelines import FLOW_PIPELINES

    case = CASES[name]
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above)
        with_long_clips(FLOW_PIPELINES[case.pipeline]()).save_pretrained(folder / "base")
        (folder / "images").mkdir()
        pixels = torch.randint(
            0, 256, (RESOLUTION, RESOLUTION, 3), generator=torch.Generator().manual_seed(1)
        )
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / "images" / "0.png")
        ours = train_hublora(case, folder, steps)
        command = [sys.executable, __file__, "--scripts", str(scripts), "--steps", str(steps)]
        with open(folder / "log.txt", "w+") as log:
            done = subprocess.run(
                [*command, "--one", name, "--work", above], stdout=log, stderr=subprocess.STDOUT
            )
            if done.returncode or not (folder / "losses.json").is_file():
                log.seek(0)
                raise SystemExit(f"{log.read()[-4000:]}\nThe script of {name} failed.")
        theirs = json.loads((folder / "losses.json").read_text())
    assert len(ours) == len(theirs) == steps
    return ours[0], ours[-1], max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    """Compare each family, print."""
    parser = argparse.ArgumentParser(description="Compare losses with those of the scripts.")
    parser.add_argument(
        "--scripts", type=Path, required=True, help="diffusers' examples/dreambooth"
    )
    parser.add_argument("--families", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        case = CASES[arguments.one]
        script = arguments.scripts / f"train_dreambooth_lora_{case.script}.py"
        train_script(script, case, arguments.work, arguments.steps)
        return
    print("| family | first loss | last loss | largest relative difference |")
    print("| --- | --- | --- | --- |")
    for name in arguments.families:
        first, last, difference = compare(name, arguments.scripts, arguments.steps)
        print(f"| {name} | {first:.4f} | {last:.4f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
