"""Images from images: image-to-image, inpainting and ControlNet, with adapters on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hublora.generation.metadata import read_image
from hublora.generation.sample import image_difference
from hublora.localhub import import_folder
from tests.lora import random_adapter, save_adapter


@pytest.fixture
def adapter(publish: Callable[..., str], tmp_path: Path, monkeypatch: Any) -> str:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (70, 66, 3), dtype=np.uint8)
    Image.fromarray(noise).save("start.png")
    for name, level in (("black", 0), ("white", 255)):
        Image.new("L", (64, 64), level).save(f"{name}.png")
    return publish("images", 1)


@pytest.fixture
def generate(adapter: str, hublora_cli: Any) -> Callable[..., Image.Image]:
    def run(*more: str) -> Image.Image:
        done = hublora_cli("run", adapter, "a hill", "--steps=4", "-o", "out.png", *more)
        assert done.status == 0, done.err
        with Image.open("out.png") as image:
            return image.copy()

    return run


def test_strength_is_how_much_is_generated_anew(generate: Callable[..., Image.Image]) -> None:
    def moved(strength: float) -> float:
        command = ["--image=start.png", f"--strength={strength}"]
        return image_difference(generate(*command, "--seed=1"), generate(*command, "--seed=2"))

    assert moved(0.25) < moved(1.0)
    assert generate("--image=start.png").size == (64, 64)
    facts = read_image(Path("out.png"))
    assert len(facts["conditions"]["image"]["sha256"]) == 64


def test_a_black_mask_preserves_and_a_white_one_generates(
    generate: Callable[..., Image.Image],
) -> None:
    def moved(mask: str) -> float:
        command = ["--image=start.png", f"--mask={mask}.png", "--strength=1", "--seed=1"]
        return image_difference(generate(*command), generate(*command, "--guidance=9"))

    assert moved("black") == 0 < moved("white")


def test_a_controlnet_is_followed(
    generate: Callable[..., Image.Image], hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    publish_controlnet(hub_data, "me/control", bases / "epsilon", tmp_path)
    command = ["--controlnet=me/control", "--width=64", "--height=64"]
    one, other = (generate(*command, f"--control-image={name}.png") for name in ("black", "white"))
    assert image_difference(one, other) > 0


def test_an_ip_adapter_looks_at_an_image(
    generate: Callable[..., Image.Image], hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    publish_ip_adapter(hub_data, "me/ip", bases / "epsilon", tmp_path / "ip")
    command = ["--ip-adapter=me/ip/models/ip.safetensors", "--ip-adapter-scale=1"]
    plain = generate()
    one, other = (
        generate(*command, f"--ip-adapter-image={name}.png") for name in ("start", "white")
    )
    assert image_difference(one, other) > 0 < image_difference(one, plain)
    stated = read_image(Path("out.png"))["conditions"]
    assert stated["ip_adapter"].startswith("me/ip@")
    assert stated["ip_adapter_scale"] == 1
    nothing = [*command[:1], "--ip-adapter-scale=0", "--ip-adapter-image=start.png"]
    assert image_difference(generate(*nothing), plain) < 1
    local = [f"--ip-adapter={tmp_path}/ip/models/ip.safetensors", *command[1:]]
    assert image_difference(generate(*local, "--ip-adapter-image=start.png"), one) == 0
    both = [*command, "--ip-adapter-image=start.png", "--image=start.png"]
    assert generate(*both).size == (64, 64)


def test_a_file_that_is_not_an_ip_adapter_is_refused(
    adapter: str, hublora_cli: Any, hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    publish_ip_adapter(hub_data, "me/ip-two", bases / "epsilon", tmp_path / "two", "a", "b")
    publish_ip_adapter(hub_data, "me/ip-wide", bases / "wide", tmp_path / "wide")
    for ref, words in (
        ("me/ip-two", "me/ip-two/models/a.safetensors\n  me/ip-two/models/b.safetensors"),
        ("me/ip-two/models/c.safetensors", "has no file models/c.safetensors"),
        ("me/ip-wide", "The IP-Adapter me/ip-wide@"),
        (adapter, "has no image_encoder in safetensors"),
        ("./nowhere.safetensors", "no file nowhere.safetensors"),
        ("me/not-there", "me/not-there"),
    ):
        flags = [f"--ip-adapter={ref}", "--ip-adapter-image=start.png", "-o", "none.png"]
        done = hublora_cli("run", adapter, "a", *flags)
        assert (done.status, words in done.err) == (1, True), done.err
        assert not Path("none.png").exists()


def test_an_image_generated_from_images_is_replayed(
    adapter: str, hublora_cli: Any, hub_data: Path, bases: Path, tmp_path: Path
) -> None:
    publish_controlnet(hub_data, "me/control-again", bases / "epsilon", tmp_path)
    publish_ip_adapter(hub_data, "me/ip-again", bases / "epsilon", tmp_path / "ip")
    flags = ["--image=start.png", "--mask=white.png", "--strength=0.8", "--ip-adapter=me/ip-again"]
    flags += ["--ip-adapter-image=white.png", "--controlnet=me/control-again"]
    flags += ["--control-image=black.png", "--steps=3", "-o", "first.png"]
    done = hublora_cli("run", adapter, "a hill", *flags, "--json")
    assert done.status == 0, done.err
    (made,) = json.loads(done.out)["images"]
    assert made["conditions"]["mask"]["name"] == "white.png"
    assert str(tmp_path) not in done.out
    done = hublora_cli("replay", "first.png", "--json")
    assert done.status == 0, done.err
    assert (json.loads(done.out)["difference"], json.loads(done.out)["drift"]) == (0.0, [])
    Path("start.png").rename("moved.png")
    done = hublora_cli("replay", "first.png")
    assert done.status == 1
    assert "generated from 'start.png' (sha256 " in done.err
    assert "--image FILE" in done.err
    done = hublora_cli("replay", "first.png", "--image=white.png")
    assert "white.png is not the input image 'start.png'" in done.err
    done = hublora_cli("replay", "first.png", "--image=moved.png")
    assert "the same image" in done.out


@pytest.fixture
def xl_adapter(hub_data: Path, bases: Path, tmp_path: Path) -> str:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(bases / "xl", add_watermarker=False)
    save_adapter(random_adapter(pipe, size=0.1), tmp_path / "xl", "bases/xl")
    import_folder(hub_data, "me/xl-images", tmp_path / "xl")
    return "me/xl-images"


def test_sdxl_generates_from_images(
    adapter: str,  # for its files
    xl_adapter: str,
    hublora_cli: Any,
    hub_data: Path,
    bases: Path,
    tmp_path: Path,
) -> None:
    publish_controlnet(hub_data, "me/control-xl", bases / "xl", tmp_path)
    publish_ip_adapter(hub_data, "me/ip-xl", bases / "xl", tmp_path / "ip")
    control = ["--controlnet=me/control-xl", "--control-image=black.png"]
    start = ["--image=start.png", "--strength=0.6"]
    images = set()
    for flags in (
        ["--width=64", "--height=64"],
        start,
        [*start, "--mask=white.png"],
        [*control, "--width=64", "--height=64"],
        [*control, *start],
        ["--ip-adapter=me/ip-xl", "--ip-adapter-image=start.png", "--width=64", "--height=64"],
    ):
        done = hublora_cli("run", xl_adapter, "a hill", "--steps=2", "-o", "xl.png", *flags)
        assert done.status == 0, done.err
        with Image.open("xl.png") as image:
            assert image.size == (64, 64)
            images.add(image.tobytes())
    assert len(images) == 6


def test_a_controlnet_of_another_family_is_named(
    adapter: str, hublora_cli: Any, hub_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "of-flux"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "FluxControlNetModel"}')
    save_file({"a": torch.ones(1)}, folder / "diffusion_pytorch_model.safetensors")
    import_folder(hub_data, "me/control-flux", folder)
    flags = ["--controlnet=me/control-flux", "--control-image=black.png"]
    done = hublora_cli("run", adapter, "a", *flags)
    assert "me/control-flux is a FluxControlNetModel; only ControlNets of Stable" in done.err


def test_what_does_not_go_together_is_refused(adapter: str, hublora_cli: Any) -> None:
    for more, words in (
        (["--mask=black.png"], "--image FILE"),
        (["--image=start.png", "--strength=2"], "must be in (0, 1], got 2"),
        (["--controlnet=me/x", "--control-image=black.png"], "no model me/x"),
        (["--controlnet=me/x"], "go together"),
        (["--ip-adapter=me/x"], "go together"),
        (["--ip-adapter-scale=1"], "requires --ip-adapter"),
        (
            ["--ip-adapter=me/x", "--ip-adapter-image=black.png", "--ip-adapter-scale=nan"],
            "got nan",
        ),
        (["--control-image=black.png"], "go together"),
    ):
        done = hublora_cli("run", adapter, "a", *more)
        assert done.status == 1
        assert words in done.err
    Path("text.png").write_text("no image")
    assert "not an image" in hublora_cli("run", adapter, "a", "--image=text.png").err


def publish_controlnet(hub_data: Path, repo_id: str, base: Path, folder: Path) -> None:
    """Put a ControlNet of a base with random weights on the Hub."""
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 16))
    generator = torch.Generator().manual_seed(0)
    for block in control.controlnet_down_blocks:  # zero when untrained: nothing would follow
        torch.nn.init.normal_(block.weight, generator=generator)
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight, generator=generator)
    control.save_pretrained(folder / "control")
    import_folder(hub_data, repo_id, folder / "control")


def publish_ip_adapter(hub_data: Path, repo_id: str, base: Path, folder: Path, *names: str) -> None:
    """Put IP-Adapters of a base with random weights, and an image encoder, on the Hub."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    generator = torch.Generator().manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    width, tokens, embedded = unet.config.cross_attention_dim, 4, 24
    tensors = {
        "image_proj.proj.weight": torch.randn(tokens * width, embedded, generator=generator),
        "image_proj.proj.bias": torch.zeros(tokens * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    attentions = [name for name in unet.attn_processors if "attn2" in name]
    for index, name in enumerate(attentions):  # diffusers numbers all attentions: 1, 3, 5, …
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("k", "v"):
            shape = getattr(layer, f"to_{part}").weight.shape
            key = f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight"
            tensors[key] = torch.randn(shape, generator=generator)
    (folder / "models").mkdir(parents=True)
    for name in names or ("ip",):
        save_file(tensors, folder / "models" / f"{name}.safetensors")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=16, projection_dim=embedded,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "models" / "image_encoder")
    import_folder(hub_data, repo_id, folder)


def test_a_photo_is_fitted_to_the_size_of_the_base(
    generate: Callable[..., Image.Image], hublora_cli: Any, adapter: str
) -> None:
    Image.new("RGB", (4032, 3024), "green").save("photo.jpg")
    assert generate("--image=photo.jpg").size == (72, 56)
    assert generate("--image=photo.jpg", "--width=128").size == (128, 96)
    assert generate("--image=photo.jpg", "--width=64", "--height=128").size == (64, 128)
    done = hublora_cli(
        "run", adapter, "a", "--steps=2", "-o", "out.png", "--image=photo.jpg", "--json"
    )
    assert "The input is 4032×3024" in done.err
    assert "72×56 is generated" in done.err
    done = hublora_cli("replay", "out.png", "--json")
    assert json.loads(done.out)["difference"] == 0.0
    assert generate("--image=start.png").size == (64, 64)
