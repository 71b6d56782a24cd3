from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.entry import hublora_cli

__all__ = ["hublora_cli"]


@pytest.fixture(scope="session")
def publish(
    hub: object, hub_data: Path, bases: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """Put an adapter with random weights on the Hub: `publish("ink", seed=2, license="mit")`."""
    from diffusers import StableDiffusionPipeline

    from hublora.localhub import import_folder
    from tests.lora import random_adapter, save_adapter

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)

    def make(name: str, seed: int = 1, license: str | None = "mit", trigger: str = "") -> str:
        folder = tmp_path_factory.mktemp("adapter")
        save_adapter(random_adapter(pipe, seed=seed, size=0.1), folder, "bases/epsilon")
        card = ["base_model: bases/epsilon", f"widget: [{{text: 'a {name} hill'}}]"]
        card += [f"license: {license}"] if license else []
        card += [f"instance_prompt: {trigger}"] if trigger else []
        (folder / "README.md").write_text("---\n" + "\n".join(card) + "\n---\n")
        import_folder(hub_data, f"me/{name}", folder)
        return f"me/{name}"

    return make
