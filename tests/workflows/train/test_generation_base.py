"""Training on one base and generating on another one with the same layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hublora
from hublora.errors import ConfigError
from hublora.generation.metadata import read_image
from hublora.hub.resolve import read_card
from hublora.localhub import import_folder
from tests.flow_pipelines import FLOW_PIPELINES

BASE, DISTILLED = (f"black-forest-labs/FLUX.2-klein-{name}" for name in ("base-4B", "4B"))
CALL = {"width": 32, "height": 32, "num_inference_steps": 2, "output_type": "np"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    (folder / "0.txt").write_text("a red cat")
    return folder


@pytest.fixture(scope="module")
def pair(hub: object, hub_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both klein bases on the Hub, which differ in the transformer; the folder of their files."""
    folder = tmp_path_factory.mktemp("klein")
    pipe = FLOW_PIPELINES["flux2-klein"]()
    pipe.save_pretrained(folder / "base")
    pipe.register_to_config(is_distilled=True)
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            parameter.mul_(1.1)
    pipe.save_pretrained(folder / "distilled")
    import_folder(hub_data, BASE, folder / "base")
    import_folder(hub_data, DISTILLED, folder / "distilled")
    return folder


def config(images: Path, output: Path, **settings: Any) -> hublora.TrainingConfig:
    return hublora.TrainingConfig.from_settings(
        {
            "base.model": BASE,
            "data.folder": images,
            "data.resolution": 32,
            "adapter.rank": 2,
            "optimizer.learning_rate": 0.1,
            "schedule.max_train_steps": 2,
            "schedule.name": "constant",
            "validation.prompts": ["a red cat"],
            "validation.num_images": 1,
            "output_dir": output,
            **settings,
        }
    )


def generate(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    seed = torch.Generator().manual_seed(0)
    return pipe(prompt="a red cat", guidance_scale=1.0, generator=seed, **CALL).images[0]


@pytest.fixture(scope="module")
def trained(pair: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(result, notes) of a training on the base, with previews, that was pushed."""
    notes: list[str] = []
    result = hublora.train(
        config(
            images,
            tmp_path_factory.mktemp("runs") / "run",
            **{
                "validation.steps": 1,
                "hub.push": True,
                "hub.model_id": "me/klein-pair-lora",
            },
        ),
        callback=lambda event: notes.append(str(event)),
    )
    return result, notes


def test_images_are_those_of_the_base_that_people_use(trained: Any) -> None:
    """With its own steps and guidance, and not a file of it twice."""
    result, notes = trained
    assert any(f"Images are generated with {DISTILLED}@" in note for note in notes)
    assert not any("was distilled to" in note for note in notes)
    facts = read_image(result.folder / "images" / "0.png")
    assert facts["base"] == DISTILLED
    assert facts["sampling"]["num_inference_steps"] == 4
    assert facts["sampling"]["guidance_scale"] == 1.0
    assert (result.folder / "validation" / "step-000001.png").is_file() or list(
        result.folder.glob("*/step-000001.png")
    )
    assert any("Gallery: " in note and "generated again" in note for note in notes)


def test_the_card_names_both_and_the_one_that_is_used_first(trained: Any) -> None:
    result, _ = trained
    card = read_card(result.folder / "README.md")
    assert card["base_model"] == [DISTILLED, BASE]
    assert card["base_model_relation"] == "adapter"
    text = " ".join((result.folder / "README.md").read_text().split())
    assert f"A LoRA adapter for [`{DISTILLED}`]" in text
    assert f"It was trained on [`{BASE}`]" in text
    assert f"| Generation base | [`{DISTILLED}`]" in text
    assert f'from_pretrained( "{DISTILLED}", revision=' in text
    (facts,) = hublora.inspect("me/klein-pair-lora")
    assert (facts.base_model, facts.generation_base) == (BASE, DISTILLED)
    assert facts.base_revision
    assert facts.generation_revision


def test_it_is_used_on_that_one_and_loads_on_either(trained: Any, pair: Path) -> None:
    from diffusers import Flux2KleinPipeline

    repo = "me/klein-pair-lora"
    ours = hublora.load(repo)
    assert ours.hublora.base.name == DISTILLED
    for pipe, folder in ((ours, "distilled"), (hublora.load(repo, base=BASE), "base")):
        plain = Flux2KleinPipeline.from_pretrained(pair / folder)
        alone = generate(plain)
        plain.load_lora_weights(trained[0].folder, weight_name="pytorch_lora_weights.safetensors")
        assert np.abs(generate(pipe) - generate(plain)).max() < 1e-4
        assert np.abs(generate(pipe) - alone).max() > 1e-3
    assert hublora.preflight(repo, base=BASE).adapters[0].problems == ()
    assert hublora.preflight(repo, base=DISTILLED).adapters[0].problems == ()


def test_only_what_differs_is_downloaded(trained: Any) -> None:
    """The training had the text encoder and VAE of the other base; loading may have them since."""
    from hublora.hub.resolve import file_ids, inspect_repo
    from hublora.workflows.train.generation_base import _files

    ids = [file_ids(name, inspect_repo(name).commit) for name in (BASE, DISTILLED)]
    for name in ("vae", "text_encoder", "tokenizer"):
        assert _files(ids[0], name) == _files(ids[1], name) != {}
    assert _files(ids[0], "transformer") != _files(ids[1], "transformer")


def test_naming_the_base_itself_generates_with_it(pair: Path, images: Path, tmp_path: Path) -> None:
    result = hublora.train(
        config(
            images,
            tmp_path / "run",
            **{"base.generation": BASE, "validation.num_inference_steps": 1},
        )
    )
    assert read_image(result.folder / "images" / "0.png")["base"] == BASE
    assert read_card(result.folder / "README.md")["base_model"] == BASE


def test_a_pair_is_named_by_hand_as_folders(pair: Path, images: Path, tmp_path: Path) -> None:
    """The images are equal to those of a pair that is on the Hub."""
    settings = {
        "base.model": str(pair / "base"),
        "base.generation": str(pair / "distilled"),
    }
    result = hublora.train(config(images, tmp_path / "run", **settings))
    with Image.open(result.folder / "images" / "0.png") as image:
        ours = np.asarray(image)
    pipe = hublora.load(str(result.folder), base=str(pair / "distilled"))
    again = pipe(
        prompt="a red cat",
        guidance_scale=1.0,
        num_inference_steps=4,
        width=32,
        height=32,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert np.array_equal(ours, np.asarray(again))
    assert read_card(result.folder / "README.md").get("base_model") is None


def test_a_wrong_pair_is_refused_before_weights_are_downloaded(
    pair: Path, images: Path, hub_data: Path, tmp_path: Path
) -> None:
    from diffusers import Flux2Transformer2DModel
    from huggingface_hub import try_to_load_from_cache

    pipe = FLOW_PIPELINES["flux2-klein"]()
    sizes = {**pipe.transformer.config, "num_attention_heads": 3}
    sizes = {key: value for key, value in sizes.items() if not key.startswith("_")}
    pipe.register_modules(transformer=Flux2Transformer2DModel(**sizes))
    pipe.save_pretrained(tmp_path / "wide")
    import_folder(hub_data, "bases/klein-wide", tmp_path / "wide")
    FLOW_PIPELINES["chroma"]().save_pretrained(tmp_path / "chroma")
    import_folder(hub_data, "bases/pair-chroma", tmp_path / "chroma")
    for other, said in (
        ("bases/klein-wide", r"have another shape there .* with 48×48 in place of 32×32"),
        ("bases/pair-chroma", "it is of the family chroma, not of flux2-klein"),
    ):
        with pytest.raises(ConfigError, match=said) as refused:
            hublora.train(config(images, tmp_path / "run", **{"base.generation": other}))
        assert DISTILLED in str(refused.value)
        file = "transformer/diffusion_pytorch_model.safetensors"
        assert not isinstance(try_to_load_from_cache(other, file), str)


def test_a_known_pair_that_is_not_there_is_told_and_done_without(
    hub: object, hub_data: Path, images: Path, tmp_path: Path
) -> None:
    name = "krea/Krea-2-Raw"
    FLOW_PIPELINES["krea2"]().save_pretrained(tmp_path / "raw")
    import_folder(hub_data, name, tmp_path / "raw")
    notes: list[str] = []
    hublora.dry_run(
        config(images, tmp_path / "run", **{"base.model": name}),
        callback=lambda event: notes.append(str(event)),
    )
    said = [note for note in notes if "which its adapters are used on, cannot be had" in note]
    assert len(said) == 1
    assert "krea/Krea-2-Turbo" in said[0]


def test_learned_tokens_and_another_generation_base_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learn tokens in the text encoders"):
        config(
            tmp_path,
            tmp_path,
            **{
                "base.generation": DISTILLED,
                "method": "pivotal",
                "tokens.placeholders": ["<x>"],
            },
        )
