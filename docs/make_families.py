# ruff: noqa: E501  (the page's own lines)
"""Writes docs/families.md from the registry of families; `--check` only tells whether it is in
step."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from generated_page import write_or_check

from hublora.families import FAMILIES, Family

PAGE = Path(__file__).parent / "families.md"
HEAD = """# Model families

<!-- Made by `make docs` from hublora/families: change that, or docs/make_families.py. -->

A base is any diffusers pipeline of these classes, by Hub id or as a folder; Stable Diffusion and SDXL for
inpainting too ([training.md](training.md#bases)). All of them are trained
(text-to-image, DreamBooth with prior preservation, presets, `--dry-run`, `--fit`, `--resume`), pushed
with a card, verified, run, loaded, composed (as a sum, switching, weighted by block or over steps),
inspected, converted and merged.
"""
MEMORY_FILE = Path(__file__).parent / "family_memory.json"
MEMORY = """
## Memory

What `--fit` chooses for so many GiB at 1024 pixels, rank 16, batch 1, AdamW and bfloat16, and the GiB that a
step takes then: `gc` is gradient checkpointing, `12/34 swapped` the blocks that wait in the CPU's memory
(`--offload blocks:12`), `int8` the quantised base (`--quantize int8`); – means that nothing fits. **These
figures are computed from the published sizes, not measured**: the transformer is built without memory, its
forward pass run for its shapes, and what autograd keeps is counted. Text encoders are counted too: they are
on the device before the denoiser is, and quantised like it.

| base | 8 GiB | 12 GiB | 16 GiB | 24 GiB |
|---|---|---|---|---|
"""
FLOW = """
How to need less, in the order that `--fit` prefers:

- `--gradient-checkpointing` computes activations again.
- `--offload blocks` (or `blocks:N` for N of them) has blocks of the denoiser wait in the CPU's memory, while
  training and while running; the numbers are the same to the bit (Krea 2: to rounding).
- `--quantize int8` or `fp8` holds the linear layers of the denoiser's and the text encoders' blocks in 8 bits,
  one scale a row; `nf4` in 4 bits (a CUDA GPU and `pip install 'hublora[quantize]'`; not run for this page).
  The adapter is one for the plain base, and card, metadata and PNGs say what it was trained on. PiSSA, OLoRA
  and DoRA need the base's own weights and are refused, as is fusing an adapter into a quantised base.

## Flow matching

Every family but the Stable Diffusion 1.x, 2.x and XL ones is trained by flow matching: the noise level
s is in (0, 1], the input is (1−s)·x + s·e and the target e − x, with weight 1. `objective.snr_gamma`
and `debiased` are not defined there; a preset leaves out what a family does not have and says so.

| setting | what it does |
|---|---|
| `objective.density` | `uniform` (the scripts' default), `logit_normal` or `mode`: how often each level is trained |
| `objective.logit_mean`, `logit_std` | of the logit of 1 − s: a positive mean trains with less noise |
| `objective.shift` | a factor above 1 moves the levels to more noise; `resolution` is the base's own shift for the size of the images |
| `objective.guidance` | the guidance that a guidance-distilled base (FLUX.1 dev, FLUX.2 dev) is trained at, 1 by default |

The static shift that a base's scheduler states is part of its levels. These bases overflow in float16:
bfloat16 is the half precision, and float16 is refused.

Images and captions are encoded once, and so are the gallery's prompts; then the text encoders, which
may be larger than all the rest, are taken out of memory for the whole training.

## Edit models

A base with references in the table above is trained on pairs ([training.md](training.md#pairs)) and
used with `--reference image.png`; where the smallest number is 0, it is trained and used as
text-to-image too. Each family resizes references as its pipeline does:

| family | size of a reference |
|---|---|
| flux-kontext | the nearest of the pipeline's preferred sizes, which have about 1024² pixels |
| flux2, flux2-klein | its own up to 1024² pixels, cropped to multiples of 16; at least 64 a side, 8:1 at most |
| qwen-image-edit | 1024² pixels in its own aspect ratio, for the VAE and for the text encoder |
| qwen-image-edit-plus | 1024² pixels for the VAE, 384² for the text encoder |

For images of fewer pixels, those of FLUX get fewer too: positions in reference and image correspond
then, as they do at full size. Qwen's text encoder sees the references, so its prompt embeddings are
cached for each pair, crop and flip.

## Distilled bases

Few-step bases are recognised by their own files, and `hublora run` takes their usual steps and guidance.
Training on one undoes the distillation, which is said before the training starts. There are two ways
around it.

**Train on the original, generate with the distilled one.** Both have the same layers. Trained on a base in
bold, an adapter's previews, gallery and card are of the distilled one, with its own steps and guidance, and
`hublora run` takes that one; `--base` names either. Of the second base only what differs is downloaded and
loaded. `--generation-base` names another one, and the trained base itself where none is wanted. A base with
other layers or sizes is refused by its headers, before its weights are downloaded.

**Train on the distilled one with an assistant**: `--assistant REF[:WEIGHT]` is an adapter that undoes the
distillation. It acts, frozen, while the other one is trained, and in no image.

| distilled | train on | or with `--assistant` |
|---|---|---|
"""
FILES = """
## Adapter files

The adapter of a family with a transformer is one file, in diffusers' names, which ComfyUI reads too; its
scale is in the weights. hublora reads the files of other tools as well: the original implementation's
names (`diffusion_model.double_blocks.0.img_attn.qkv`, …, with `model.` in front or without), flattened ones
(`lora_unet_…`, `lora_transformer_…`, `lycoris_…`), XLabs's (`double_blocks.0.processor.qkv_lora1`), PEFT's, with
`lora_A`/`lora_B` or `lora_down`/`lora_up`, with `.alpha` or without. Layers that the original stacks
(query, key and value; FLUX.1's `linear1`; the swapped halves of `final_layer`) are split into the base's
own, exactly. Every tensor is accounted for: what fits no layer is an error that names it.

`hublora convert … --to kohya` stacks them again for tools that use the original names; parts that the
adapter does not change need `--base`, for their sizes.

## What was checked, and what was not

Each family is tested on a tiny pipeline of its real classes with random weights: three steps of
diffusers' pipeline are three Euler steps of the training's own call, exactly; what is trained is what
diffusers loads; a resumed training ends in the same bytes (Z-Image, Qwen-Image). No base of full size
was trained for this page: the memory above is computed, and it has no figures of speed.

- Chroma: diffusers' gradient checkpointing leaves out its attention mask, so it is refused.
- FLUX.2 dev: without torchvision it is loaded with its tokenizer alone, which prompts of text need.
- Edit models: the same steps with references, exactly. FLUX.1 Kontext, FLUX.2 klein and
  Qwen-Image-Edit-Plus are tested from training on pairs to replaying an image. Qwen-Image-Edit's processor
  of videos needs torchvision; without it, hublora loads the one of images alone, which resizes with Pillow.
"""


def rows() -> Sequence[str]:
    """Return the table of families."""
    lines = [
        "| family | pipelines | usual steps, guidance | tokens read | references | known bases |",
        "|---|---|---|---|---|---|",
    ]
    # Families for inpainting share the bases of the one that they were made from: see training.md.
    by_bases = {id(family.known_bases): family for family in reversed(FAMILIES.values())}
    for family in reversed(by_bases.values()):
        pipelines = ", ".join(f"`{name}`" for name in family.pipeline_classes)
        tokens = getattr(family, "text_length", 77)
        bases = ", ".join(sorted(family.known_bases.architectures)) or "–"
        cells = (family.name, pipelines, _usual(family), tokens, _references(family), bases)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _references(family: Family) -> str:
    """Return how many reference images an image of the family has."""
    takes = family.references
    if not takes.most:
        return "–"
    least = 1 if takes.required else 0
    return str(least) if least == takes.most else f"{least}–{takes.most}"


def _usual(family: Family) -> str:
    """Return the usual sampling settings, those of distilled bases second."""
    nowhere = Path("/nonexistent")
    usual = family.sampling("", nowhere)
    texts = [f"{usual.num_inference_steps}, {usual.guidance_scale:g}"]
    distilled = getattr(family, "usual_distilled", None)
    if distilled is not None and family.known_bases.undistilled:
        texts.append(f"distilled: {distilled.num_inference_steps}, {distilled.guidance_scale:g}")
    return "; ".join(texts)


def distilled() -> Sequence[str]:
    """Return the rows of distilled bases."""
    rows = {}
    for known in (family.known_bases for family in FAMILIES.values()):
        for one, other in known.undistilled.items():
            named = f"**{other}**" if known.generation.get(other) == one else other
            rows[one] = f"| {one} | {named} | {known.assistants.get(one, '')} |"
    return list(rows.values())


def memory() -> Sequence[str]:
    """Return the rows of the memory that published bases take, as `tools.family_memory` computed it."""
    found = json.loads(MEMORY_FILE.read_bytes())
    return [
        f"| {label} | " + " | ".join(plan or "–" for plan in plans.values()) + " |"
        for label, plans in found.items()
    ]


def page() -> str:
    """Return the whole page."""
    return "\n".join(
        [HEAD, *rows(), MEMORY + "\n".join(memory()), FLOW + "\n".join(distilled()), FILES]
    )


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), "hublora/families"))
