"""Use: adapter refs ─ load ─▶ pipeline ─ draw ─▶ images that say how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hublora.generation.generate import generate, save
from hublora.generation.inputs import Inputs
from hublora.generation.offload import Offload
from hublora.generation.outputs import check_output, check_replaceable, output_paths, save_grid
from hublora.generation.prompt_placeholders import TriggerMode
from hublora.progress import Callback, FileWritten, no_callback
from hublora.weights import CompositionMode
from hublora.workflows.load import load


def run(
    refs: Sequence[str] | str,
    prompt: str,
    *,
    output: Path | str | None = None,
    num_images: int = 1,
    grid: bool = False,
    seed: int = 0,
    base: str | None = None,
    base_revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    scheduler: str | None = None,
    trigger: TriggerMode = "auto",
    compose: CompositionMode | None = None,
    weights: Mapping[str, str | float] | None = None,
    commercial: bool = False,
    offload: Offload | None = None,
    tiled_vae: bool = False,
    image: Path | str | None = None,
    strength: float | None = None,
    mask: Path | str | None = None,
    controlnet: str | None = None,
    control_image: Path | str | None = None,
    ip_adapter: str | None = None,
    ip_adapter_image: Path | str | None = None,
    ip_adapter_scale: float | None = None,
    callback: Callback = no_callback,
    **sampling: Any,
) -> list[Path]:
    """Generate images of `prompt` with the adapters and save them as PNG.

    Over 60 lines because loading, conditions and sampling are all keywords of the one call.

    Args:
        refs: Adapter refs, or one; none draws with `base` alone.
        prompt: Prompt of the images.
        output: A .png file, or a folder; the current folder if not given.
        num_images: Images; the k-th has the seed `seed + k`.
        grid: Write one labelled sheet besides.
        seed: Seed of the first image.
        base: As for `load`.
        base_revision: As for `load`.
        device: As for `load`.
        dtype: As for `load`.
        scheduler: Class name of a diffusers scheduler.
        trigger: "auto" puts trigger words that the prompt lacks in front, "off" does not.
        compose: As for `load`.
        weights: As for `load`.
        commercial: As for `load`.
        offload: As for `load`.
        tiled_vae: As for `load`.
        image: An image to start from.
        strength: How much of `image` is drawn anew, in (0, 1].
        mask: White where `image` is drawn anew.
        controlnet: Hub id of a ControlNet.
        control_image: Input image of the ControlNet.
        ip_adapter: Hub id of an IP-Adapter, with the file in it if it holds several, or a file.
        ip_adapter_image: Input image of the IP-Adapter.
        ip_adapter_scale: How strongly it acts beside the words; 0.6 if not given.
        callback: Is told what happens.
        sampling: Fields of `generation.sample.Sampling`; None means the base's own.

    Returns:
        The files written, the sheet last.

    Raises:
        HubloraError: As `load`, and ConfigError for a scheduler that does not fit.
    """
    from hublora.generation.sample import Sampling, check_plan, sampling_for, use_scheduler

    output = None if output is None else Path(output)
    check_output(output)
    if num_images == 1:  # several have the seed in their names, and those are unused
        check_replaceable(output)
    Sampling(prompt, **{name: value for name, value in sampling.items() if value is not None})
    inputs = Inputs(
        image, strength, mask, controlnet, control_image, ip_adapter, ip_adapter_image,
        ip_adapter_scale,
    ).open()  # fmt: skip
    pipe = load(
        *([refs] if isinstance(refs, str) else refs),
        base=base,
        base_revision=base_revision,
        compose=compose,
        weights=weights,
        commercial=commercial,
        offload=offload,
        tiled_vae=tiled_vae,
        device=device,
        dtype=dtype,
        prepare=inputs.prepare,
        callback=callback,
    )
    use_scheduler(pipe, scheduler)
    if pipe.hublora.lock:
        prompt = pipe.hublora.lock.fill(prompt)
    plan = sampling_for(pipe.hublora.base, prompt, scheduler=scheduler, **sampling)
    check_plan(pipe, pipe.hublora.base.family.size_step(pipe), plan)
    plans = [plan.with_seed(seed + index) for index in range(num_images)]
    paths = output_paths(output, prompt, [p.seed for p in plans])
    images = []
    drawing = generate(pipe, plans, trigger, callback, inputs.conditions)
    for drawn, one, path in zip(drawing, plans, paths, strict=True):
        save(drawn, path, pipe.hublora, one, trigger, inputs.conditions)
        callback(FileWritten("image", path))
        images.append(drawn)
    if grid:
        paths.append(save_grid(images, plans, paths[0]))
        callback(FileWritten("sheet", paths[-1]))
    return paths
