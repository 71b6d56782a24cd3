"""Suggests the flag that somebody means, by what other tools call it before by its letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import click

# What other tools and people call a flag of `hublora train` -> the flag there.
OF_TRAINING = {
    "--batch-size": "--train-batch-size",
    "--bucket-reso-steps": "--set data.bucket_step=…",
    "--caption-dropout-rate": "--caption-dropout",
    "--caption-tag-dropout-rate": "--tag-dropout",
    "--conv-dim": "--set adapter.conv_rank=…",
    "--dora": "--set adapter.method=dora",
    "--enable-bucket": "--aspect-buckets",
    "--epochs": "--num-train-epochs",
    "--flip-aug": "--random-flip",
    "--keep-tokens": "--keep-tags",
    "--lora-alpha": "--alpha",
    "--lr": "--learning-rate",
    "--masked-loss": "--masks",
    "--max-train-epochs": "--num-train-epochs",
    "--min-snr-gamma": "--snr-gamma",
    "--model": "--base",
    "--network-alpha": "--alpha",
    "--network-dim": "--rank",
    "--network-dropout": "--set adapter.dropout=…",
    "--network-weights": "--set adapter.start_from=…",
    "--optimizer-type": "--optimizer",
    "--output-name": "--output-dir",
    "--prompt": "--validation-prompt",
    "--save-every-n-steps": "--checkpointing-steps",
    "--shuffle-caption": "--shuffle-tags",
    "--steps": "--max-train-steps",
    "--unet-lr": "--learning-rate",
}
# What other tools and people call a flag of the other commands -> the flags it may be there.
OF_USE: Mapping[str, tuple[str, ...]] = {
    "--batch-count": ("--num-images",),
    "--cfg": ("--guidance",),
    "--cfg-scale": ("--guidance",),
    "--count": ("--num-images", "--limit"),
    "--denoising-strength": ("--strength",),
    "--format": ("--to",),
    "--guidance-scale": ("--guidance",),
    "--hub-model-id": ("--push-to-hub",),
    "--init-image": ("--image",),
    "--input-image": ("--image",),
    "--layout": ("--to",),
    "--lora-scale": ("--weight",),
    "--method": ("--merge", "--compose"),
    "--model": ("--base",),
    "--n-iter": ("--num-images",),
    "--negative": ("--negative-prompt",),
    "--num-images-per-prompt": ("--num-images",),
    "--num-inference-steps": ("--steps",),
    "--out": ("--output",),
    "--output-dir": ("--output", "--folder"),
    "--output-path": ("--output",),
    "--pretrained-model-name-or-path": ("--base",),
    "--push": ("--push-to-hub",),
    "--sampler": ("--scheduler",),
    "--scale": ("--weight",),
}


def suggestion(flag: str, known: Sequence[str]) -> str | None:
    """Return the flag that somebody who typed `flag` may mean; None if no name is near in meaning.

    Args:
        flag: With its dashes, as typed.
        known: The flags there are.
    """
    flag = flag.replace("_", "-")
    if flag in known:
        return flag
    of_training = "--train-batch-size" in known
    if of_training and flag in OF_TRAINING:
        return OF_TRAINING[flag]
    for meant in () if of_training else OF_USE.get(flag, ()):
        if meant in known:
            return meant
    if misspelt := get_close_matches(flag, known, 1, 0.8):
        return misspelt[0]
    shared = {name: len(_words(flag) & _words(name)) for name in known}
    nearest = max(shared, key=lambda name: (shared[name], -len(name)), default=None)
    enough = max(1, len(_words(flag)) - 1)
    return nearest if nearest is not None and shared[nearest] >= enough else None


def with_suggestion(error: click.ClickException) -> click.ClickException:
    """Return an error of click; for an unknown flag with the one that may be meant."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    known = [
        flag
        for parameter in error.ctx.command.params
        if isinstance(parameter, click.Option)
        for flag in parameter.opts
    ]
    near = suggestion(error.option_name, known)
    hint = f" Did you mean {near}?" if near else ""
    return click.UsageError(f"No such option {error.option_name!r}.{hint}", error.ctx)


def _words(flag: str) -> set[str]:
    """Return the words of a flag in the singular."""
    return {word.removesuffix("s") for word in flag.strip("-").split("-")}
