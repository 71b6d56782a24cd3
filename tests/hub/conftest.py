from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.entry import hublora_cli
from tests.proxy import Proxy

__all__ = ["hublora_cli"]

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_numbers = itertools.count()


@pytest.fixture
def repo_id() -> str:
    """The id of a repo that is not there yet."""
    return f"me/adapter-{next(_numbers)}"


@pytest.fixture(scope="session")
def api(hub: object) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


@pytest.fixture(scope="session")
def finished_run(bases: Path, hub: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as a training leaves it, of an adapter with random weights."""
    from diffusers import StableDiffusionPipeline

    import hublora
    from hublora.cards.user_sections import mark
    from hublora.generation.generate import save
    from hublora.generation.sample import sample, sampling_for
    from tests.lora import random_adapter, save_adapter

    folder = tmp_path_factory.mktemp("runs") / "finished"
    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    adapter = random_adapter(pipe, size=0.05)
    save_adapter(adapter, folder, "bases/epsilon")
    save_adapter(adapter, folder / "checkpoint-4")
    (folder / "comfyui").mkdir()
    shutil.copy(folder / "pytorch_lora_weights.safetensors", folder / "comfyui" / "a.safetensors")
    pipe = hublora.load(str(folder))
    plan = sampling_for(pipe.hublora.base, "Totoro", seed=3)
    image = sample(pipe, plan)
    for number in range(2):
        save(image, folder / "images" / f"{number}.png", pipe.hublora, plan)
    (folder / "README.md").write_text(
        "---\nbase_model: bases/epsilon\nlibrary_name: diffusers\ntags: [hublora]\n---\n"
        f"# An adapter\n\n{mark('Say what it is for.')}\n"
    )
    return folder


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for one test."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def through(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Proxy]]:
    """Lead this process's clients through a proxy: `proxy = through(change=…, dies_at=…)`."""
    from huggingface_hub import constants

    with_proxies: list[Proxy] = []

    def lead(**behaviour: Any) -> Proxy:
        proxy = Proxy(os.environ["HF_ENDPOINT"], **behaviour).__enter__()
        with_proxies.append(proxy)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, proxy.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", proxy.url)
        return proxy

    yield lead
    for proxy in with_proxies:
        proxy.__exit__(None, None, None)
