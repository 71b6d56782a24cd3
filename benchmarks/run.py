"""How fast does hublora generate with adapters, beside plain diffusers?

    python benchmarks/run.py [--runs 5] [--device cuda]

Switching, bringing and adding up adapters on SDXL's layers; recompilations; what looking at an
adapter costs over HTTP; and whole processes, from their start to the image on the disk, with the
demo's base on the embedded Hub. Times on a CPU are seconds of this process's CPU, which other work
on the machine hardly spoils.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROMPT = "a drawing of a purple cat"
ADAPTER, BASE = "hublora/tiny-stripes-lora", "hublora/tiny-sd"
STEPS = 20

SHORTEST = f"""
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({BASE!r})
pipe.load_lora_weights({ADAPTER!r})
image = pipe({PROMPT!r}, num_inference_steps={STEPS}, guidance_scale=GUIDANCE,
             generator=torch.Generator("cpu").manual_seed(0)).images[0]
image.save("theirs.png")
"""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each whole process")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", help="a part: switching, bringing, stepping, …")
    args = parser.parse_args()
    print("| what | hublora | beside | ratio | target |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name, rows in _parts(Path(temporary), args.device, args.runs).items():
            if args.only in (None, name):
                for row in rows:
                    print(row, flush=True)


def _parts(folder: Path, device: str, runs: int) -> dict[str, Iterator[object]]:
    sys.path.insert(0, str(ROOT))
    import run_adapters as adapters

    return {
        "switching": adapters.switching(folder, device),
        "bringing": adapters.bringing(device),
        "stepping": adapters.stepping(device),
        "compiling": adapters.compiling(device),
        "looking": looking(folder),
        "processes": processes(folder, device, runs),
    }


def looking(folder: Path) -> Iterator[object]:
    """Inspect an adapter of SDXL's size through a proxy that counts."""
    import run_adapters as adapters

    from hublora.localhub import LocalHub, import_folder
    from tests.proxy import Proxy

    unet = adapters.sdxl_unet(320, "meta", empty=True)
    source = folder / "large"
    source.mkdir()
    file = source / "pytorch_lora_weights.safetensors"
    size = adapters._save(adapters.random_adapter(unet, 16, 0), file).stat().st_size
    import_folder(folder / "looking", "me/large", source)
    with LocalHub.start(folder / "looking") as hub, Proxy(hub.url) as proxy:
        settings = {**os.environ, **hub.environ(), "HF_ENDPOINT": proxy.url}
        settings["HF_HOME"] = str(folder / "fresh")
        command = [sys.executable, "-m", "hublora", "inspect", "me/large"]
        subprocess.run(command, env=settings, check=True, capture_output=True)
    # huggingface_hub asks once for lists of its own, which are of no adapter.
    asked = [request for request in proxy.requests if "me/large" in request]
    yield adapters.Row("preflight over HTTP: requests", len(asked), 3, "≤ 1", "")
    yield adapters.Row(
        "preflight over HTTP: bytes, beside the file's", proxy.sent, size, "≤ 0.01", "B"
    )


def processes(folder: Path, device: str, runs: int) -> Iterator[object]:
    """Generate the same image with `hublora run` and with the shortest script, in turns."""
    import run_adapters as adapters

    from hublora.demo.seed import seed
    from hublora.localhub import LocalHub

    hub_folder = folder / "hub"
    with LocalHub.start(hub_folder) as hub:
        seed(hub_folder)
        settings = {**os.environ, **hub.environ(), "HF_HOME": str(folder / "hf")}
        settings |= {"HUBLORA_CACHE": str(folder / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        ours = [
            sys.executable, "-m", "hublora", "run", ADAPTER, PROMPT, "--steps", str(STEPS),
            "--guidance", "5", "--trigger", "off", "--device", device, "-o", "ours.png", "-q",
        ]  # fmt: skip
        script = SHORTEST.replace("GUIDANCE", "5")
        if device != "cpu":
            script = script.replace("pipe.load_lora", f"pipe.to({device!r})\npipe.load_lora")
        theirs = [sys.executable, "-c", script]
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
        for round_number in range(runs + 1):
            for name, command in (("ours", ours), ("theirs", theirs)):
                took = _process(command, folder, settings)
                if round_number:  # the first one fills the caches
                    times[name].append(took)
    walls, cpus = (
        {name: statistics.median(pair[kind] for pair in found) for name, found in times.items()}
        for kind in (0, 1)
    )
    what = f"whole process, tiny base, {STEPS} steps"
    yield adapters.Row(f"{what}: wall", walls["ours"], walls["theirs"], "≤ 1.1", "s")
    yield adapters.Row(f"{what}: CPU", cpus["ours"], cpus["theirs"], "≤ 1.1", "s")
    yield adapters.Row(
        "largest difference of the two images, of 255", _difference(folder), 255, "", "levels"
    )


def _process(command: list[str], folder: Path, settings: dict[str, str]) -> tuple[float, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=settings, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _difference(folder: Path) -> float:
    import numpy as np
    from PIL import Image

    images = []
    for name in ("ours", "theirs"):
        with Image.open(folder / f"{name}.png") as image:
            images.append(np.asarray(image, dtype=np.int16))
    return float(np.abs(images[0] - images[1]).max())


if __name__ == "__main__":
    main()
