"""`hublora run`: generates images with adapters by repo id."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from hublora.cli.early import check_adapters
from hublora.cli.options import pairs
from hublora.cli.output import out, output_flags
from hublora.generation.outputs import check_output

if TYPE_CHECKING:
    from hublora.cli.progress import ProgressReport

EXAMPLES = """
\b
Examples:
  hublora run me/pokemon-lora "Totoro"
  hublora run me/pokemon-lora:0.7 me/ink-lora:0.5 "a castle" --num-images 4 --grid
  hublora run me/dog-lora me/ink-lora "a <1> in the style of <2>"
  hublora run me/dog-lora me/ink-lora "a castle" --compose switch --weight 2=0.2..0.9
  hublora run me/pokemon-lora@v1 "Totoro" --seed 7 -o totoro.png
  hublora run me/ink-lora "a castle" --rows weight=0..1:5 --columns seed=4 -o sheet
  hublora run me/ink-lora "a castle" --image sketch.png --strength 0.6
  hublora run me/snow-lora "make it snow" --reference castle.png
  hublora run me/ink-lora "a castle" --ip-adapter me/ip-adapter --ip-adapter-image mood.png
  hublora run me/ink-lora --prompts prompts.txt -n 2 -o images
  hublora run ./runs/pokemon-lora "Totoro" --base stable-diffusion-v1-5/stable-diffusion-v1-5
"""


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_IMAGES = (
    "image", "strength", "mask", "controlnet", "control_image", "ip_adapter", "ip_adapter_image",
    "ip_adapter_scale",
)  # fmt: skip


@click.command(epilog=EXAMPLES)
@click.argument("words", nargs=-1, metavar="ADAPTER[:WEIGHT]... PROMPT")
@click.option(
    "--prompts",
    type=click.File("r", encoding="utf-8"),
    help="A file of prompts, one a line, in PROMPT's place; - is stdin.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .png file or a folder; the current folder by default.",
)
@click.option(
    "-n",
    "--num-images",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Number of images.",
)
@click.option("--grid", is_flag=True, help="Also write one labelled image grid.")
@click.option(
    "--rows",
    metavar="AXIS=VALUES",
    help="Rows of the grid: weight=0..1:5, weight.2=0,0.5,1, seed=4, steps=10,20, guidance or "
    "scheduler.",
)
@click.option(
    "--columns", metavar="AXIS=VALUES", help="Columns of the grid, likewise; seeds by default."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1001),
    default=0,
    show_default=True,
    help="Seed of the first image.",
)
@click.option("--negative-prompt", help="Negative prompt; empty by default.")
@click.option(
    "--steps",
    "num_inference_steps",
    type=click.IntRange(1),
    help="Denoising steps; by default as the base's card says, else 30.",
)
@click.option(
    "--guidance",
    "guidance_scale",
    type=float,
    help="Classifier-free guidance; by default as the base's card says, else 7.5.",
)
@click.option("--width", type=click.IntRange(8), help="Width in pixels; the base's own by default.")
@click.option(
    "--height", type=click.IntRange(8), help="Height in pixels; the base's own by default."
)
@click.option(
    "--scheduler",
    help="A scheduler as in diffusers or AUTOMATIC1111, e.g. EulerDiscrete, LCM, TCD or "
    "'DPM++ 2M Karras'; the base's own by default.",
)
@click.option(
    "--timestep-spacing",
    type=click.Choice(["leading", "linspace", "trailing"]),
    help="Timesteps that the steps are at; many adapters for few steps need trailing. The "
    "scheduler's own by default.",
)
@click.option(
    "--shift",
    type=float,
    help="Shift of the noise levels of a flow-matching base, the same at every size; above 1 to "
    "more noise. The scheduler's own by default.",
)
@click.option(
    "--compose",
    type=click.Choice(["sum", "switch", "composite"]),
    help="How several adapters are combined: all at once (sum, the default), one per denoising "
    "step in turn, or each alone with their predictions averaged.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="ADAPTER=WEIGHT",
    callback=pairs,
    help="Weight over the steps (0.2..0.9) or by block (1,mid:0,up.1:0.5) of an adapter, named by "
    "its ref or its place: 1=0.5.",
)
@click.option(
    "--trigger",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="Prepend trigger words that PROMPT lacks, or leave PROMPT as it is.",
)
@click.option("--image", type=_FILE, help="Input image (image-to-image).")
@click.option(
    "--strength",
    type=float,
    help="How strongly --image is changed, in (0, 1]; the pipeline's own by default.",
)
@click.option(
    "--mask", type=_FILE, help="Inpainting mask of --image: white is generated, black is preserved."
)
@click.option(
    "--reference",
    multiple=True,
    type=_FILE,
    help="Reference image of an edit model, to which PROMPT is the instruction; may be repeated.",
)
@click.option("--controlnet", help="Hub id of a ControlNet.")
@click.option("--control-image", type=_FILE, help="Conditioning image of the ControlNet.")
@click.option(
    "--ip-adapter", metavar="REPO[/FILE]", help="An IP-Adapter on the Hub, or its local file."
)
@click.option("--ip-adapter-image", type=_FILE, help="Image prompt of the IP-Adapter.")
@click.option("--ip-adapter-scale", type=float, help="Scale of the IP-Adapter; 0.6 by default.")
@click.option(
    "--commercial",
    is_flag=True,
    help="Refuse adapters and bases whose licence forbids commercial use.",
)
@click.option(
    "--base",
    help="Hub id or folder of the base model, or a single .safetensors file; by default the one "
    "that the adapters name.",
)
@click.option("--revision", "base_revision", help="Branch, tag or commit of --base.")
@click.option(
    "--components",
    help="Pipeline, as owner/name[@revision] or a folder, with what a single file as --base lacks; "
    "the one known to its family by default.",
)
@click.option("--device", help="Torch device, e.g. cuda:1; a GPU by default if there is one.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Data type of the weights; by default float16 on a GPU, float32 elsewhere.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8", "fp8", "nf4"]),
    help="Hold the linear layers of denoiser and text encoders in 8 or 4 bits.",
)
@click.option(
    "--offload",
    metavar="[model|blocks|blocks:N|sequential]",
    help="Move one component (model), one block of the denoiser (blocks; blocks:N swaps N of them) "
    "or one layer (sequential) to the GPU at a time; all at once by default.",
)
@click.option(
    "--tiled-vae", is_flag=True, help="Decode in tiles, which takes less memory for large images."
)
@output_flags
def run(
    words: tuple[str, ...],
    prompts: TextIO | None,
    rows: str | None,
    columns: str | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Generate PROMPT with one or more adapters and save the images as PNG.

    An adapter is a repo id, a page or file on the Hub, or a local file; its weight follows a
    colon. The base model is the one that the adapters name. The metadata of each PNG records how
    it was generated.

    In PROMPT, <1>, <2>, … are replaced by the trigger words or token embeddings of the first,
    second, … adapter. (word:1.2) raises the attention on a word, (word:0.5) lowers it.

    With --prompts, --rows or --columns, images that the output folder already contains are not
    generated again, and --json prints one line per file.

    An adapter that was trained for few steps, such as LCM, Lightning, Hyper-SD or Turbo ones,
    brings its steps, guidance and scheduler; what is given here wins.
    """
    from hublora.cli.progress import ProgressReport

    refs = words if prompts else words[:-1]
    if not (words or prompts) or (not refs and settings["base"] is None):
        raise click.UsageError('Give an adapter and a prompt: hublora run me/pokemon-lora "Totoro"')
    check_adapters(
        refs, settings["base"], settings["base_revision"], dict(settings["weights"] or {})
    )
    check_output(output)
    with ProgressReport(names_files=False) as report:
        if prompts or rows or columns:
            texts = list(prompts) if prompts else [words[-1]]
            _run_batch(refs, texts, report, output=output, rows=rows, columns=columns, **settings)
            return
        from hublora.workflows.run import run as workflow

        paths = workflow(refs, words[-1], output=output, callback=report, **settings)
    names = [str(path) for path in paths]
    out.result("\n".join(names), {"files": names, "images": _made(paths)}, names)


def _made(paths: list[Path]) -> list[dict[str, Any]]:
    """Return each image's metadata with --json, else nothing."""
    if out.mode != "json":
        return []
    from hublora.generation.metadata import read_image

    return [{"path": str(path), **read_image(path)} for path in paths]


def _run_batch(
    refs: tuple[str, ...], prompts: list[str], report: ProgressReport, **settings: Any
) -> None:
    from hublora.workflows.run_batch import read_prompts, run_batch

    if any(settings.pop(name) is not None for name in _IMAGES):
        raise click.UsageError(
            "--prompts, --rows and --columns cannot be combined with --image, --mask, --controlnet "
            "or --ip-adapter."
        )
    items = run_batch(refs, read_prompts(prompts), callback=report, **settings)
    for done in items:
        text = f"{done.path}{'  (exists)' if done.skipped else ''}"
        (made,) = _made([done.path]) or [{}]
        out.result(text, asdict(done) | {"made": made}, [str(done.path)])
