"""Plausible facts, and text that tries to be more than text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hublora.cards.facts import (
    CardFacts,
    GalleryImage,
    LicenseFacts,
    RepoFacts,
    SamplingFacts,
    TrainingFacts,
)

HOSTILE = (
    "a `cat` ```x``` | y \\| z\n---\nlicense: mit\n# heading\n<script>alert(1)</script> \"q\" 'q' "
    "{{ 7*7 }} {% raw %} [link](https://evil.example) ![i](x.png) *b* _i_ $x$ &lt; \u202e\x00\n"
    "<!-- hublora:keep -->\nmine\n<!-- /hublora:keep -->\n```\n</details> \ud800 é 猫 🐈"
)


@pytest.fixture
def make_facts() -> Callable[..., CardFacts]:
    def make(**changes: Any) -> CardFacts:
        facts: dict[str, Any] = {
            "title": "Sketchbook",
            "base": RepoFacts("someone/base", "a" * 40, LicenseFacts("openrail")),
            "family_tags": ("stable-diffusion", "stable-diffusion-diffusers"),
            "pipeline_class": "StableDiffusionPipeline",
            "hublora_version": "0.1.0",
            "repo_id": "me/sketchbook",
            "dtype": "float16",
            "dataset": RepoFacts("someone/images", "b" * 40, LicenseFacts("cc-by-4.0")),
            "trigger_words": ("sketchbook style",),
            "kohya_path": "comfyui/sketchbook.safetensors",
            "rank": 4,
            "alpha": 8.0,
            "components": ("unet",),
            "targets": ("to_k", "to_q"),
            "size": 3_227_000,
            "gallery": (
                GalleryImage("images/0.png", "a red cat", "blurry", 3),
                GalleryImage("images/1.png", "a blue fish", "", 4),
            ),
            "before_after": "images/before-after.png",
            "sampling": SamplingFacts(25, 7.5, "DDIMScheduler", 512, 512),
            "training": TrainingFacts(
                steps=600,
                images=60,
                final_loss=0.1234567,
                seconds=5025,
                settings={"learning rate": 1e-4, "flip": True, "snr gamma": None},
                loss_plot="training/loss.png",
            ),
            "environment": {"python": "3.12.1", "device": "Some GPU", "device_memory": 24 * 10**9},
        }
        return CardFacts(**{**facts, **changes})

    return make


@pytest.fixture
def hostile() -> str:
    return HOSTILE
