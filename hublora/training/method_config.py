"""Settings of the methods: what is shown and learned besides captioned pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hublora.training.section import Section

MethodName = Literal["text-to-image", "dreambooth", "textual-inversion", "pivotal"]


class DreamBoothSettings(Section):
    """One subject under one prompt, and pictures of its class that keep the base from forgetting.

    The names are those of diffusers' `train_dreambooth_lora.py`.
    """

    instance_prompt: str | None = Field(
        None, min_length=1, description='Caption of every picture, such as "a photo of sks dog".'
    )
    prior_preservation: bool = Field(
        False, description="Show pictures of the class too, drawn by the base alone."
    )
    class_prompt: str | None = Field(
        None, min_length=1, description='What those show, such as "a photo of a dog".'
    )
    class_folder: Path | None = Field(
        None,
        description="Where those are, and where missing ones are drawn (default: in the cache).",
    )
    num_class_images: int = Field(100, ge=1, description="How many of those.")
    prior_weight: float = Field(1.0, gt=0, description="Weight of their loss.")


class TokenSettings(Section):
    """Words that are learned: textual inversion, https://huggingface.co/papers/2208.01618."""

    placeholders: list[str] = Field(
        default=[], description='New word that stands for what is learned, such as "<my-dog>".'
    )
    initializers: list[str] = Field(
        default=[], description="What it means at first, such as dog; a random meaning unless set."
    )
    num_vectors: int = Field(1, ge=1, le=64, description="Vectors that each new word stands for.")
    property: Literal["object", "style"] = Field(
        "object", description="What pictures without captions are said to show."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of the new words; with pivotal 5 times the adapter's.",
    )
    first_steps: float = Field(
        0.4,
        ge=0,
        description="Steps with the new words alone, before the adapter joins (pivotal): a "
        "number, or a share below 1.",
    )
