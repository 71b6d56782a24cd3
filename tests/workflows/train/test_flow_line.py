"""The whole line on the flow-matching families: train, push, verify, use, compose, inspect."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import hublora
from hublora.errors import AdapterError, ConfigError
from hublora.families import family_of_pipeline
from hublora.localhub import import_folder
from tests.flow_pipelines import FLOW_PIPELINES

STEPS = 2
BLOCK = {"z-image": "layer.0", "flux-dev": "block.0"}


def save_base(name: str, folder: Path) -> Path:
    base = folder / f"tiny-{name}"
    if not base.exists():
        FLOW_PIPELINES[name]().save_pretrained(base)
    return base


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two captioned images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a red cat number {number}")
    return folder


def train(
    base: str, data: dict[str, Any], folder: Path, resume: str | None = None, **sections: Any
) -> Any:
    settings = {
        "base": {"model": base},
        "data": {"resolution": 32, **data},
        "adapter": {"rank": 2, "alpha": 4.0},
        "schedule": {"max_train_steps": STEPS, "name": "constant"},
        "optimizer": {"learning_rate": 0.1},
        "validation": {"prompts": ["a red cat"], "num_images": 1, "num_inference_steps": STEPS},
        "output_dir": folder / "run",
    }
    config = hublora.TrainingConfig.from_tree({**settings, **sections})
    return hublora.train(config, resume=resume)


def generate(pipe: Any, **arguments: Any) -> Any:
    import torch

    pipe.set_progress_bar_config(disable=True)
    family = family_of_pipeline(pipe)
    call = family.call_arguments(pipe, "a red cat", "", 3.0)
    return pipe(
        **call,
        width=32,
        height=32,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
        **arguments,
    ).images[0]


@pytest.mark.parametrize("name", FLOW_PIPELINES)
def test_what_is_trained_is_what_diffusers_loads(name: str, images: Path, tmp_path: Path) -> None:
    """One file, with its scale in the weights: alpha is 4 and the rank 2."""
    import diffusers

    base = save_base(name, tmp_path)
    result = train(str(base), {"folder": images}, tmp_path)
    weights = result.folder / "pytorch_lora_weights.safetensors"
    assert not (result.folder / "comfyui").exists()
    card = (result.folder / "README.md").read_text()
    assert "its names are" in card
    plain = FLOW_PIPELINES[name]()
    kind = getattr(diffusers, type(plain).__name__)
    plain = kind.from_pretrained(base)
    alone = generate(plain)
    ours = hublora.load(str(result.folder), base=str(base), device="cpu")
    assert type(ours) is kind
    with_ours = generate(ours)
    plain.load_lora_weights(result.folder, weight_name=weights.name)
    assert np.abs(with_ours - alone).max() > 1e-3
    assert np.abs(with_ours - generate(plain)).max() < 1e-4
    with safe_open(weights, "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == {"transformer"}  # noqa: SIM118


@pytest.fixture(scope="module", params=["z-image", "flux-dev"])
def pushed(
    request: pytest.FixtureRequest,
    hub_data: Path,
    hub: object,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """(family, repo id, result) of an adapter that was pushed, which generates an image again."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    import_folder(hub_data, f"bases/{name}", save_base(name, folder))
    repo = f"me/{name}-lora"
    result = train(
        f"bases/{name}",
        {"dataset": "bases/images", "max_train_samples": 2},
        folder,
        hub={"push": True, "model_id": repo},
    )
    return name, repo, result


def test_it_is_pushed_and_inspected_and_run_by_its_id(pushed: Any, tmp_path: Path) -> None:
    name, repo, result = pushed
    assert result.pushed.repo_id == repo
    (facts,) = hublora.inspect(repo)
    assert facts.base_model == f"bases/{name}"
    assert facts.components == ("transformer",)
    (path,) = hublora.run(
        [repo], "a red cat", output=tmp_path / "x.png", steps=STEPS, width=32, height=32
    )
    with Image.open(path) as image:
        assert image.size == (32, 32)
    again = hublora.replay(path, output=tmp_path / "again.png")
    assert again.difference == 0


def test_it_is_composed_by_sum_and_switch_with_weights_by_block(pushed: Any) -> None:
    name, repo, _ = pushed
    pipe = hublora.load(repo, f"{repo}:0.5")
    both = generate(pipe)
    hublora.use(pipe, f"{repo}:1.5")
    assert np.allclose(both, generate(pipe), atol=1e-4)
    hublora.use(pipe, repo, f"{repo}:0.5", compose="switch")
    assert np.abs(both - generate(pipe)).max() > 1e-4
    hublora.use(pipe, repo)
    whole = generate(pipe)
    hublora.use(pipe, repo, weights={repo: f"1,{BLOCK[name]}:0"})
    assert np.abs(whole - generate(pipe)).max() > 1e-5
    hublora.use(pipe)
    assert np.abs(whole - generate(pipe)).max() > 1e-3


def test_what_does_not_apply_to_these_families_is_refused(images: Path, tmp_path: Path) -> None:
    base = str(save_base("z-image", tmp_path))
    data = {"folder": images}
    with pytest.raises(ConfigError, match="no adapter onto the text encoder of z-image"):
        train(base, data, tmp_path, adapter={"rank": 2, "text_encoder": True})
    with pytest.raises(ConfigError, match="snr_gamma is not defined for a flow-matching"):
        train(base, data, tmp_path, objective={"snr_gamma": 5.0})
    with pytest.raises(ConfigError, match="Learned tokens require"):
        train(base, data, tmp_path, method="pivotal", tokens={"placeholders": ["<x>"]})
    with pytest.raises((ConfigError, AdapterError), match="overflows in float16"):
        hublora.load(base=base, dtype="float16")


def test_what_a_preset_has_for_other_families_is_left_out_and_told(
    images: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    config = hublora.TrainingConfig.from_tree(
        {
            "preset": "style",
            "base": {"model": str(save_base("chroma", tmp_path))},
            "data": {"folder": images, "resolution": 32, "crop_variants": 1},
            "adapter": {"rank": 2},
            "schedule": {"max_train_steps": 1},
            "validation": {"prompts": ["a cat"], "num_images": 1, "num_inference_steps": 1},
            "objective": {"density": "logit_normal", "shift": 2.0},
            "output_dir": tmp_path / "run",
        }
    )
    result = hublora.train(config, callback=lambda event: notes.append(str(event)))
    assert any("The preset's adapter.conv_rank is left out" in note for note in notes)
    card = (result.folder / "README.md").read_text()
    assert "| density of noise levels | logit\\_normal (0, 1) |" in card
    assert "| shift of noise levels | 2 |" in card
    with pytest.raises(ConfigError, match="leaves out its attention mask"):
        hublora.train(
            config.updated({"gradient_checkpointing": True, "output_dir": tmp_path / "other"})
        )


def test_the_text_encoder_that_diffusers_adapts_is_trained_too(
    images: Path, tmp_path: Path
) -> None:
    base = save_base("flux-dev", tmp_path)
    adapter = {"rank": 2, "alpha": 4.0, "text_encoder": True}
    result = train(str(base), {"folder": images}, tmp_path, adapter=adapter)
    ours = hublora.load(str(result.folder), base=str(base), device="cpu")
    plain = type(ours).from_pretrained(base)
    plain.load_lora_weights(result.folder, weight_name="pytorch_lora_weights.safetensors")
    with safe_open(result.folder / "pytorch_lora_weights.safetensors", "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == {  # noqa: SIM118
            "transformer",
            "text_encoder",
        }
    assert np.abs(generate(ours) - generate(plain)).max() < 1e-4


@pytest.mark.parametrize("name", ["z-image", "qwen-image"])
def test_a_resumed_training_ends_in_the_same_bytes(name: str, images: Path, tmp_path: Path) -> None:
    base = str(save_base(name, tmp_path))
    sections = {
        "schedule": {"max_train_steps": 4, "name": "constant"},
        "checkpoint": {"steps": 2},
        "adapter": {"rank": 2, "trigger_words": ["red cat"]},
        "objective": {
            "density": "logit_normal",
            "preserve": True,
            "preserve_class": "cat",
            "preserve_weight": 0.5,
        },
    }
    whole = train(base, {"folder": images}, tmp_path, **sections)
    card = (whole.folder / "README.md").read_text()
    assert (
        "| preserved | the base's predictions for the captions with 'cat' for 'red cat' |" in card
    )
    assert "| objective.preserve_weight | 0.5 |" in card.replace("\\", "")
    part = tmp_path / "part"
    shutil.copytree(whole.folder, part / "run")
    shutil.rmtree(part / "run" / "checkpoint-4")
    (part / "run" / "pytorch_lora_weights.safetensors").unlink()
    again = train(base, {"folder": images}, part, resume="latest", **sections)
    for file in ("pytorch_lora_weights.safetensors", "images/0.png"):
        assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def test_training_on_a_distilled_base_is_warned_of(images: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    config = hublora.TrainingConfig.from_tree(
        {
            "base": {"model": str(save_base("flux-schnell", tmp_path))},
            "data": {"folder": images, "resolution": 32},
            "schedule": {"max_train_steps": 1},
            "output_dir": tmp_path / "run",
        }
    )
    hublora.dry_run(config, callback=lambda event: notes.append(str(event)))
    assert any("was distilled to 4 steps, which training undoes" in note for note in notes)


def test_it_is_merged_and_converted_and_back(pushed: Any, tmp_path: Path) -> None:
    """As kohya's tools name it, with the layers stacked that the original stacks."""
    name, repo, _ = pushed
    base = f"bases/{name}"
    kohya = hublora.convert(repo, "kohya", tmp_path / "kohya.safetensors", base=base).files[0]
    with safe_open(kohya, "pt") as file:
        names = set(file.keys())
    assert all(one.startswith("lora_unet_") for one in names)
    stacked = "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"
    assert (stacked in names) == (name == "flux-dev")
    back = hublora.convert(str(kohya), "diffusers", tmp_path / "back.safetensors", base=base)
    images = [generate(hublora.load(ref, base=base)) for ref in (repo, str(back.files[0]))]
    assert np.abs(images[0] - images[1]).max() < 1e-4
    assert np.abs(images[0] - generate(hublora.load(base=base))).max() > 1e-3
    hublora.merge([repo, f"{repo}:0.5"], tmp_path / "merged", gallery=False)
    merged = generate(hublora.load(str(tmp_path / "merged"), base=base))
    assert np.abs(merged - generate(hublora.load(repo, f"{repo}:0.5"))).max() < 1e-3


def test_a_subject_is_trained_with_class_images(images: Path, tmp_path: Path) -> None:
    result = train(
        str(save_base("flux2-klein", tmp_path)),
        {"folder": images, "cache_dir": tmp_path / "cache"},
        tmp_path,
        method="dreambooth",
        dreambooth={
            "instance_prompt": "a photo of sks cat",
            "class_prompt": "a photo of a cat",
            "prior_preservation": True,
            "num_class_images": 1,
        },
    )
    assert len(list((tmp_path / "cache" / "class").glob("*/*.png"))) == 1
    assert (result.folder / "pytorch_lora_weights.safetensors").is_file()


def test_t5_may_be_missing(images: Path, tmp_path: Path) -> None:
    pipe = FLOW_PIPELINES["sd3"]()
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipe.save_pretrained(tmp_path / "base")
    result = train(str(tmp_path / "base"), {"folder": images}, tmp_path)
    assert (result.folder / "images" / "0.png").is_file()


def test_what_the_base_cannot_do_is_refused_before_encoding(images: Path, tmp_path: Path) -> None:
    klein = {"base.model": str(save_base("flux2-klein", tmp_path))}
    z_image = {"base.model": str(save_base("z-image", tmp_path))}
    common = {
        "data.cache_dir": tmp_path / "cache",
        "data.folder": images,
        "data.resolution": 32,
        "schedule.max_train_steps": 1,
        "output_dir": tmp_path / "run",
    }
    for changes, said in (
        ({**klein, "validation.negative_prompt": "bad"}, "takes no negative prompt, got 'bad'"),
        ({**z_image, "objective.shift": "resolution"}, "states no shift by resolution"),
        ({**z_image, "objective.debiased": True}, "debiased is not defined"),
    ):
        config = hublora.TrainingConfig.from_settings({**common, **changes})
        with pytest.raises(ConfigError, match=said):
            hublora.train(config)
    assert not (tmp_path / "cache" / "latents").exists()


def test_an_adapter_of_another_family_with_such_layers_is_refused(
    images: Path, tmp_path: Path
) -> None:
    result = train(str(save_base("chroma", tmp_path)), {"folder": images}, tmp_path)
    with pytest.raises(AdapterError, match=r"is for a base of the family chroma.*is of flux"):
        hublora.load(str(result.folder), base=str(save_base("flux-schnell", tmp_path)))


def test_a_weighted_prompt_is_refused_where_prompts_are_not_clips(
    images: Path, tmp_path: Path
) -> None:
    base = str(save_base("flux-schnell", tmp_path))
    result = train(base, {"folder": images}, tmp_path)
    with pytest.raises(ConfigError, match="do not work with a FluxPipeline"):
        hublora.run([str(result.folder)], "a (cat:1.5)", output=tmp_path / "x.png", base=base)
