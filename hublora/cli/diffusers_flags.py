"""Translates the flags of diffusers' training scripts to those of `hublora train`.

Scripts: examples/text_to_image/train_text_to_image_lora.py and _sdxl.py,
examples/dreambooth/train_dreambooth_lora.py and _sdxl.py of https://github.com/huggingface/diffusers.
Each of their flags that is not named alike here is in exactly one of the tables below.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import click

from hublora.cli.output import out

# Their flag -> the flag here.
RENAMED = {
    "--pretrained-model-name-or-path": "--base",
    "--dataset-name": "--dataset",
    "--dataset-config-name": "--dataset-config",
    "--train-data-dir": "--folder",
    "--instance-data-dir": "--folder",
    "--dataloader-num-workers": "--num-workers",
    "--resume-from-checkpoint": "--resume",
}
# Their flag, which takes a value -> the setting of that value.
TO_SETTING = {
    "--image-interpolation-mode": "data.interpolation",
    "--adam-beta1": "optimizer.beta1",
    "--adam-beta2": "optimizer.beta2",
    "--adam-weight-decay": "optimizer.weight_decay",
    "--adam-weight-decay-text-encoder": "optimizer.text_encoder_weight_decay",
    "--adam-epsilon": "optimizer.epsilon",
    "--lora-dropout": "adapter.dropout",
    "--lr-num-cycles": "schedule.num_cycles",
    "--lr-power": "schedule.power",
    "--prodigy-beta3": "optimizer.beta3",
    "--text-encoder-lr": "optimizer.text_encoder_learning_rate",
}
# Their flag without a value -> setting and value.
SWITCHES = {
    "--use-8bit-adam": "optimizer.name=adamw-8bit",
    "--use-dora": "adapter.method=dora",
}
# Their flag -> whether it takes a value, and why it has no effect here.
WITHOUT_EFFECT = {
    "--allow-tf32": (False, "the frozen base runs in --mixed-precision"),
    "--cache-dir": (True, "set HF_HOME for downloads and HUBLORA_CACHE for latents"),
    "--debug-loss": (False, "the loss of every step is in training/history.jsonl"),
    "--enable-npu-flash-attention": (False, "PyTorch's attention is used"),
    "--enable-xformers-memory-efficient-attention": (False, "PyTorch's attention is used"),
    "--local-rank": (True, "accelerate launch tells each process its rank"),
    "--logging-dir": (True, "trackers write into the run folder"),
    "--output-kohya-format": (False, "the file for kohya's tools is always written, to comfyui/"),
    "--pre-compute-text-embeddings": (False, "prompt embeddings are always cached"),
    "--pretrained-vae-model-name-or-path": (
        True,
        "images are encoded in float32 by the base's own VAE, which does not overflow there",
    ),
    "--prior-generation-precision": (True, "class images are generated in --mixed-precision"),
    "--prodigy-decouple": (True, "Prodigy's weight decay is decoupled"),
    "--prodigy-safeguard-warmup": (True, "Prodigy is safeguarded against warm-up"),
    "--prodigy-use-bias-correction": (True, "Prodigy's bias correction is on"),
    "--sample-batch-size": (True, "class images are generated one at a time"),
    "--variant": (True, "the variant is chosen from the files of the base"),
}
# Their flag -> whether it takes a value, and why it is refused.
REFUSED = {
    "--class-labels-conditioning": (True, "bases with class labels cannot be trained"),
    "--do-edm-style-training": (False, "EDM-style training is not available"),
    "--prediction-type": (
        True,
        "the prediction type is read from the base's scheduler, and another one cannot be trained",
    ),
    "--scale-lr": (
        False,
        "multiply --learning-rate by batch size, accumulation steps and processes yourself",
    ),
    "--text-encoder-use-attention-mask": (False, "CLIP reads prompts without a mask"),
    "--tokenizer-max-length": (True, "prompts have the length of the base's text encoder"),
    "--tokenizer-name": (True, "the tokenizer is the base's own"),
    "--validation-images": (True, "previews are generated from prompts alone"),
}


def translate_flags(args: list[str]) -> list[str]:
    """Return the arguments with every flag under the name it has here.

    A flag that becomes a setting takes its value along: `--adam_beta1 0.9` is
    `--set optimizer.beta1=0.9`. The value of `--hub_token` goes to HF_TOKEN of this process.

    Raises:
        click.UsageError: A flag changes the result in a way that is not available here.
    """
    translated: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return [*translated, arg, *rest]
        if not arg.startswith("--"):
            translated.append(arg)
            continue
        name, equals, value = arg.partition("=")
        name = name.replace("_", "-")
        given = value if equals else None
        translated += _translate(RENAMED.get(name, name), given, rest)
    return translated


def _translate(name: str, given: str | None, rest: Iterator[str]) -> Iterable[str]:
    """Return the arguments for one flag; takes its value from `rest` if it is not `given`."""
    if name in TO_SETTING:
        return ["--set", f"{TO_SETTING[name]}={_value(given, rest)}"]
    if name in SWITCHES:
        return ["--set", SWITCHES[name]]
    if name == "--hub-token":
        os.environ["HF_TOKEN"] = _value(given, rest)
        return []
    if name == "--optimizer":  # the scripts write AdamW
        return [name, _value(given, rest).lower()]
    if name in REFUSED:
        raise click.UsageError(f"{name} cannot be used: {REFUSED[name][1]}.")
    if name in WITHOUT_EFFECT:
        takes_value, reason = WITHOUT_EFFECT[name]
        if takes_value:
            _value(given, rest)
        out.note(f"{name} has no effect: {reason}.")
        return []
    return [name if given is None else f"{name}={given}"]


def _value(given: str | None, rest: Iterator[str]) -> str:
    return next(rest, "") if given is None else given
