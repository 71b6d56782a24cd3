"""Use: adapter refs ─ load ─▶ pipeline ─ generate ─▶ images that say how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from hublora.generation.generate import generate, image_facts, save
from hublora.generation.inputs import Inputs
from hublora.generation.options import (
    InputOptions,
    LoadOptions,
    RunOptions,
    check_options,
    pick,
    pick_sampling,
)
from hublora.generation.outputs import check_output, check_replaceable, output_paths, unused
from hublora.progress import Callback, FileWritten, default_callback
from hublora.workflows.load import load_pipeline


def run(
    refs: Sequence[str] | str,
    prompt: str,
    *,
    output: Path | str | None = None,
    num_images: int = 1,
    grid: bool = False,
    callback: Callback = default_callback,
    **options: Unpack[RunOptions],
) -> list[Path]:
    """Generate images of `prompt` with the adapters and save them as PNG.

    Args:
        refs: Adapter refs, or one; none generates with `base` alone.
        prompt: Text of the images.
        output: A .png file, or a folder; the current folder if not given.
        num_images: Number of images; the k-th has the seed `seed + k`.
        grid: Write one labelled sheet besides.
        callback: Called with each event (`hublora.progress.Event`); by default they are logged
            under `hublora`, and a notebook shows progress bars.
        options: Keywords of `load`, and the following; None is a speed adapter's, else the base's.
        negative_prompt: Text that images avoid.
        seed: Seed of the first image; 0 by default.
        num_inference_steps: Denoising steps; `steps` for short.
        guidance_scale: Strength of classifier-free guidance; 1 or less turns it off.
        width: Width in pixels.
        height: Height in pixels.
        scheduler: Scheduler as in diffusers or AUTOMATIC1111, e.g. "LCM", "DPM++ 2M Karras".
        timestep_spacing: "leading", "linspace" or "trailing".
        shift: Shift of the noise levels of flow matching, at any size of images.
        trigger: "auto" adds missing trigger words in front of the prompt, "off" does not.
        image: Image to start from.
        strength: How much of `image` is generated anew, in (0, 1].
        mask: Inpainting mask, white where `image` is generated anew.
        controlnet: Hub id of a ControlNet.
        control_image: Conditioning image of the ControlNet.
        ip_adapter: Hub id of an IP-Adapter, with the file in it if it holds several, or a file.
        ip_adapter_image: Image prompt of the IP-Adapter.
        ip_adapter_scale: Strength of the IP-Adapter; 0.6 by default.
        reference: Reference images of an edit model, in order, or one.

    Returns:
        The files written, the sheet last.

    Raises:
        HubloraError: As `load`, and ConfigError for a scheduler that does not fit.
    """
    # Over 60 lines because the keywords of loading, conditions and sampling meet here.
    from hublora.generation.sample import (
        Sampling,
        check_plan,
        sampling_with,
        use_scheduler_of,
    )
    from hublora.generation.sheet import SheetAxes, save_sheet

    check_options(options, RunOptions, run)
    output = None if output is None else Path(output)
    check_output(output)
    if num_images == 1:  # several have the seed in their names, and those are unused
        check_replaceable(output)
    sampling = pick_sampling(options)
    Sampling(prompt, **sampling)  # checked before anything is loaded
    inputs = Inputs(**pick(options, InputOptions)).open()
    refs = [refs] if isinstance(refs, str) else refs
    pipe = load_pipeline(
        refs, pick(options, LoadOptions), callback, inputs.prepare, inputs.check_family
    )
    if pipe.hublora.lock:
        prompt = pipe.hublora.lock.fill(prompt)
    plan = sampling_with(pipe.hublora, prompt, **sampling)
    use_scheduler_of(pipe, plan)
    check_plan(pipe, pipe.hublora.base.family.size_step(pipe), plan)
    plans = [plan.with_seed(plan.seed + index) for index in range(num_images)]
    trigger = options.get("trigger", "auto")
    paths = output_paths(output, prompt, [p.seed for p in plans])
    images = []
    generated = generate(pipe, plans, trigger, callback, inputs.conditions)
    for image, one, path in zip(generated, plans, paths, strict=True):
        save(image, path, pipe.hublora, one, trigger, inputs.conditions)
        callback(FileWritten("image", path))
        images.append(image)
    if grid:
        axes = SheetAxes.of_seeds([one.seed for one in plans])
        facts = image_facts(pipe.hublora, plan, trigger, inputs.conditions)
        path = unused(paths[0].with_stem(paths[0].stem + "-grid"))
        save_sheet(path, axes, images, pipe.hublora, facts)
        callback(FileWritten("sheet", path))
        paths.append(path)
    return paths
