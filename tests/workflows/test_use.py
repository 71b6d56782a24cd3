"""One pipeline, one adapter after the other: what is in memory, and what leaves it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

import hublora
from hublora.errors import HubloraError
from hublora.localhub import import_folder
from tests.lora import random_adapter, save_adapter


@pytest.fixture
def refs(publish: Callable[..., str]) -> list[str]:
    return [publish(f"using-{name}", seed) for seed, name in enumerate("abc", 1)]


def generated(pipe: Any) -> bytes:
    generator = torch.Generator().manual_seed(0)
    return pipe("a hill", num_inference_steps=1, generator=generator).images[0].tobytes()


def test_other_adapters_generate_what_they_generate_alone(refs: list[str], hub_data: Path) -> None:
    pipe = hublora.load(refs[0])
    first = generated(pipe)
    hublora.use(pipe, f"{refs[1]}:0.5", refs[2], compose="switch", weights={"2": "0.1..0.9"})
    assert pipe.hublora.mode == "switch"
    assert [one["weight"] for one in pipe.hublora.facts()["adapters"]] == [0.5, "0.1..0.9"]
    hublora.use(pipe, f"{refs[1]}:0.5")
    assert generated(pipe) == generated(hublora.load(f"{refs[1]}:0.5")) != first
    hublora.use(pipe, refs[0])
    assert generated(pipe) == first
    assert pipe.hublora.adapter_cache.names == ["me/using-c", "me/using-b", "me/using-a"]
    hublora.use(pipe)
    assert generated(pipe) == generated(hublora.load(base="bases/epsilon"))


def test_a_pipeline_keeps_to_the_commit_that_it_had(
    refs: list[str], hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    pipe = hublora.load(refs[0], cache_bytes=0)
    first, facts = generated(pipe), pipe.hublora.facts()
    save_adapter(random_adapter(pipe, seed=9, size=0.1), tmp_path, "bases/epsilon")
    import_folder(hub_data, refs[0], tmp_path)
    hublora.use(pipe, refs[1])
    assert pipe.hublora.adapter_cache.names == ["me/using-b"]  # what acts stays, the other left
    hublora.use(pipe, refs[0])
    assert (generated(pipe), pipe.hublora.facts()) == (first, facts)


def test_what_is_over_the_limit_leaves_in_the_order_of_use(refs: list[str]) -> None:
    pipe = hublora.load(refs[0])
    adapter_cache = pipe.hublora.adapter_cache
    pipe = hublora.load(refs[0], cache_bytes=2 * adapter_cache.nbytes)
    adapter_cache = pipe.hublora.adapter_cache
    for ref in (refs[1], refs[0], refs[2]):
        hublora.use(pipe, ref)
    assert adapter_cache.names == ["me/using-a", "me/using-c"]
    hublora.use(pipe, *refs)  # all of them act: more than the limit, and none leaves
    assert len(adapter_cache.names) == 3
    hublora.use(pipe, refs[2])
    assert len(adapter_cache.names) == 2


def test_a_file_that_changed_is_read_again(pipe_file: Path) -> None:
    pipe = hublora.load(str(pipe_file))
    first = generated(pipe)
    save_adapter(random_adapter(pipe, seed=9, size=0.1), pipe_file.parent, "bases/epsilon")
    hublora.use(pipe, str(pipe_file))
    assert generated(pipe) != first


@pytest.fixture
def pipe_file(bases: Path, tmp_path: Path) -> Path:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    return save_adapter(random_adapter(pipe, size=0.1), tmp_path / "mine", "bases/epsilon")


def test_what_cannot_be_used_leaves_the_image_as_it_was(
    refs: list[str], bases: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    wide = StableDiffusionPipeline.from_pretrained(bases / "wide", safety_checker=None)
    misfit = save_adapter(random_adapter(wide), tmp_path, "bases/wide")
    pipe = hublora.load(refs[0])
    first, facts = generated(pipe), pipe.hublora.facts()
    wrong: list[tuple[list[str], dict[str, Any]]] = [
        ([refs[1], "me/not-there"], {}),
        ([refs[1], str(misfit)], {}),
        ([refs[1]], {"weights": {"1": "1,text:0.5"}}),
        ([refs[1]], {"weights": {"2": 1}}),
        ([f"{refs[1]}:1e30"], {}),
        ([f"{refs[1]}:nan"], {}),
    ]
    for names, settings in wrong:
        with pytest.raises(HubloraError):
            hublora.use(pipe, *names, **settings)
        assert (generated(pipe), pipe.hublora.facts()) == (first, facts)


def test_a_pipeline_from_elsewhere_is_refused(bases: Path) -> None:
    with pytest.raises(HubloraError, match=r"hublora\.load"):
        hublora.use(object(), "me/ink")


def test_a_switch_needs_no_callback_and_says_so(refs: list[str]) -> None:
    pipe = hublora.load(*refs[:2], compose="switch")

    def generate(**more: Any) -> bytes:
        generator = torch.Generator().manual_seed(0)
        return (
            pipe("a hill", num_inference_steps=2, generator=generator, **more).images[0].tobytes()
        )

    switched = generate()
    pipe = copy.deepcopy(pipe)
    assert generate() == switched
    with pytest.raises(HubloraError, match="Leave callback_on_step_end"):
        generate(callback_on_step_end=pipe.hublora.on_step_end)
    assert generate() == switched
    hublora.use(pipe, refs[0])
    assert generate() != switched


def test_weights_set_through_diffusers_do_not_outlive_use(refs: list[str]) -> None:
    pipe = hublora.load(refs[0])
    first = generated(pipe)
    pipe.set_adapters("hublora", 0.5)
    assert generated(pipe) != first
    hublora.use(pipe, refs[0])
    assert generated(pipe) == first
    pipe.disable_lora()
    assert generated(pipe) != first
    hublora.use(pipe, refs[0])
    assert generated(pipe) == first
    names = [name for name, one in pipe.unet.named_parameters() if one.requires_grad]
    assert not [name for name in names if "lora_" in name]


def test_threads_that_share_a_pipeline_get_the_adapters_that_they_name(refs: list[str]) -> None:
    pipe = hublora.load(refs[0])
    alone = []
    for ref in refs[:2]:
        hublora.use(pipe, ref)
        alone.append(generated(pipe))

    def generate(index: int) -> bool:
        with hublora.using(pipe, refs[index % 2]) as mine:
            return generated(mine) == alone[index % 2]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(generate, range(8)))


def test_a_call_whose_adapters_another_thread_changes_raises(refs: list[str]) -> None:
    pipe = hublora.load(refs[0])
    first = generated(pipe)

    def change(_pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        thread = Thread(target=hublora.use, args=(pipe, refs[1]))
        thread.start()
        thread.join()
        return tensors

    with pytest.raises(HubloraError, match=r"Another thread .* hublora\.using"):
        pipe("a hill", num_inference_steps=2, callback_on_step_end=change)
    hublora.use(pipe, refs[0])
    assert generated(pipe) == first


def test_a_path_is_a_local_file(pipe_file: Path) -> None:
    pipe = hublora.load(pipe_file, base="bases/epsilon")
    assert [one.ref.kind for one in pipe.hublora.adapters] == ["local"]
    hublora.use(pipe, pipe_file.parent)
    (images,) = hublora.run(
        pipe_file, "a", base="bases/epsilon", steps=1, output=pipe_file.with_name("a.png")
    )
    assert images.is_file()


def test_a_pipeline_that_from_pipe_made_takes_other_adapters(refs: list[str]) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline
    from PIL import Image

    def edited(pipe: Any) -> bytes:
        generator = torch.Generator().manual_seed(0)
        image = Image.new("RGB", (64, 64), "green")
        made = pipe("a hill", image=image, num_inference_steps=2, generator=generator)
        return made.images[0].tobytes()

    pipe = hublora.load(refs[0])
    other = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    first = edited(other)
    hublora.use(other, refs[1])
    assert edited(other) != first
    assert other.hublora is pipe.hublora
    assert [part.title for part in pipe.hublora.adapters] == [refs[1]]
    hublora.use(pipe, refs[0])
    with hublora.using(other, refs[0]) as same:
        assert edited(same) == first
