"""What runs and their repos are called."""

from __future__ import annotations

import pytest

from hublora.errors import RefError
from hublora.training.config.training_config import TrainingConfig


def names(model_id: str) -> None:
    TrainingConfig.from_settings({"base.model": "a/b", "hub.model_id": model_id})


def test_a_repo_may_be_named_without_its_owner_as_in_the_diffusers_scripts() -> None:
    names("naruto-lora")
    names("me/naruto-lora")
    for wrong in ("", "naruto lora", "me/", "me/a/b", "/naruto"):
        with pytest.raises(RefError, match=r"hub\.model_id"):
            names(wrong)
