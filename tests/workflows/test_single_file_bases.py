"""A base may be one original .safetensors file: read by diffusers, pinned by its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hublora
from hublora.errors import AdapterError, ConfigError, NotFoundError, RefError
from hublora.families.registry import family_of_file
from hublora.filesystem import cache_root, sha256_of
from hublora.generation.metadata import read_image
from hublora.hub.resolve import inspect_repo, read_card
from hublora.localhub import import_folder
from hublora.refs import BaseRef
from tests.flow_pipelines import FLOW_PIPELINES
from tests.single_files import stable_diffusion_file, z_image_file

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def files(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of tiny versions of Stable Diffusion, SDXL and Z-Image."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    folder = tmp_path_factory.mktemp("files")
    pipe = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    stable_diffusion_file(pipe, folder / "sd.safetensors")
    pipe = StableDiffusionXLPipeline.from_pretrained(bases / "xl", add_watermarker=False)
    stable_diffusion_file(pipe, folder / "xl.safetensors")
    pipe = FLOW_PIPELINES["z-image"]()
    pipe.save_pretrained(folder / "z-image")
    z_image_file(pipe.transformer, folder / "z-image.safetensors")
    return folder


@pytest.fixture(scope="module")
def repo(files: Path, hub_data: Path, hub: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repo that holds one file of SDXL."""
    folder = tmp_path_factory.mktemp("repo")
    (folder / "illustrious.safetensors").write_bytes((files / "xl.safetensors").read_bytes())
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: fair-ai\n---\n")
    import_folder(hub_data, "someone/illustrious", folder)
    return "someone/illustrious"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    (folder / "0.txt").write_text("a red cat")
    return folder


def settings(images: Path, output: Path, **more: Any) -> dict[str, Any]:
    return {
        "data.folder": images,
        "data.resolution": 64,
        "adapter.rank": 2,
        "optimizer.learning_rate": 0.1,
        "schedule.max_train_steps": 2,
        "schedule.name": "constant",
        "validation.prompts": ["a red cat"],
        "validation.num_images": 1,
        "validation.num_inference_steps": 2,
        "output_dir": output,
        **more,
    }


def train(given: dict[str, Any]) -> Path:
    return hublora.train(hublora.TrainingConfig.from_settings(given)).folder


def components_of(pipe: Any) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, model in pipe.components.items()
        if isinstance(model, torch.nn.Module)
        for key, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("file", "components"), [("sd", "epsilon"), ("xl", "xl"), ("z-image", "z-image")]
)
def test_a_file_is_the_pipeline_that_it_was_made_of(
    file: str, components: str, files: Path, bases: Path
) -> None:
    folder = files / components if (files / components).is_dir() else bases / components
    pipe = hublora.load(base=str(files / f"{file}.safetensors"), components=str(folder))
    ours = components_of(pipe)
    theirs = components_of(hublora.load(base=str(folder)))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert pipe.hublora.base.sha256 == sha256_of(files / f"{file}.safetensors")


def test_it_is_converted_once(files: Path, bases: Path) -> None:
    arguments = {"base": str(files / "sd.safetensors"), "components": str(bases / "epsilon")}
    hublora.load(**arguments)
    before = {path: path.stat().st_mtime_ns for path in cache_root().glob("single_files/*")}
    hublora.load(**arguments)
    after = {path: path.stat().st_mtime_ns for path in cache_root().glob("single_files/*")}
    assert before == after != {}


@pytest.fixture(scope="module")
def pushed(
    repo: str, bases: Path, hub: object, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """(repo id, folder) of an adapter that was trained on a file on the Hub."""
    output = tmp_path_factory.mktemp("runs") / "run"
    given = settings(
        bases / "images",
        output,
        **{
            "base.model": repo,
            "base.components": "bases/xl",
            "hub.push": True,
            "hub.model_id": "me/illustrious-lora",
        },
    )
    return "me/illustrious-lora", train(given)


def test_what_was_trained_names_file_commit_hash_and_components(
    pushed: tuple[str, Path], files: Path, repo: str
) -> None:
    name, folder = pushed
    commit, components = inspect_repo(repo).commit, inspect_repo("bases/xl").commit
    (facts,) = hublora.inspect(name)
    assert facts.base_model == f"{repo}/illustrious.safetensors"
    assert facts.base_revision == commit
    assert facts.base_sha256 == sha256_of(files / "xl.safetensors")
    assert facts.base_components == f"bases/xl@{components}"
    card = read_card(folder / "README.md")
    assert card["base_model"] == repo
    assert card["license"] == "other"
    text = (folder / "README.md").read_text()
    assert facts.base_sha256 in text
    code = " ".join(text.split())
    assert f"from_single_file( hf_hub_download('{repo}'".replace("'", '"') in code
    assert 'config="bases/xl"' in code


def test_it_is_run_verified_and_replayed_by_its_id(
    pushed: tuple[str, Path], repo: str, tmp_path: Path
) -> None:
    name, _ = pushed
    (path,) = hublora.run([name], "a red cat", steps=2, output=tmp_path / "x.png")
    facts = read_image(path)
    assert facts["base"] == f"{repo}/illustrious.safetensors"
    assert facts["base_components"].startswith("bases/xl@")
    assert hublora.replay(path, output=tmp_path / "again.png").difference == 0
    report = hublora.verify(name)
    assert report.passed, report.checks
    checked = hublora.preflight(name, base=repo, components="bases/xl")
    assert checked.adapters[0].problems == ()
    assert checked.adapters[0].fit.fraction == 1.0
    pipe = hublora.load(base=repo, components="bases/xl")
    hublora.use(pipe, name)
    with pytest.raises(ConfigError, match="is a single file"):
        hublora.compose([name], output=tmp_path / "mix")


def test_it_works_offline(
    pushed: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    hublora.run([pushed[0]], "a red cat", steps=1, output=tmp_path / "x.png")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hublora.run([pushed[0]], "a red cat", steps=1, output=tmp_path / "y.png")


def test_a_local_file_is_trained_on_and_named_by_its_hash(
    files: Path, images: Path, tmp_path: Path
) -> None:
    """A transformer, whose other components are those of a folder."""
    base, components = str(files / "z-image.safetensors"), str(files / "z-image")
    given = settings(
        images,
        tmp_path / "run",
        **{"base.model": base, "base.components": components, "data.resolution": 32},
    )
    folder = train(given)
    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    assert metadata["hublora.base_sha256"] == sha256_of(files / "z-image.safetensors")
    assert "hublora.base_model" not in metadata
    text = (folder / "README.md").read_text()
    assert str(files) not in text
    assert "ZImageTransformer2DModel.from_single_file(" in text
    notes: list[str] = []
    other = tmp_path / "other.safetensors"
    tensors = load_file(base)
    save_file({name: one * 1.01 for name, one in tensors.items()}, other)
    for path in (base, str(other)):
        hublora.load(
            str(folder),
            base=path,
            components=components,
            callback=lambda one: notes.append(str(one)),
        )
    assert sum("was trained on another file (sha256" in note for note in notes) == 1
    assert hublora.verify(str(folder), base=base, components=components).passed
    image = folder / "images" / "0.png"
    with pytest.raises(ConfigError, match="with a folder or file as base"):
        hublora.replay(image, adapters=[folder], output=tmp_path / "x.png")
    given = {"adapters": [folder], "components": components, "output": tmp_path / "x.png"}
    assert hublora.replay(image, base=base, **given).difference == 0
    assert hublora.replay(image, base=str(other), **given).drift


def test_a_file_states_that_it_predicts_velocity(files: Path, bases: Path, tmp_path: Path) -> None:
    """As NoobAI's do, by tensors without values."""
    marked = tmp_path / "vpred.safetensors"
    marks = {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    save_file(load_file(files / "xl.safetensors") | marks, marked)
    pipe = hublora.load(base=str(marked), components=str(bases / "xl"))
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.scheduler.config.rescale_betas_zero_snr
    assert pipe.scheduler.config.timestep_spacing == "trailing"


def test_what_cannot_be_read_whole_is_refused(
    files: Path, bases: Path, hub_data: Path, tmp_path: Path
) -> None:
    def load(path: Path | str, components: Path | str | None = None) -> None:
        hublora.load(base=str(path), components=components and str(components))

    tensors = load_file(files / "sd.safetensors")
    lost = tmp_path / "lost.safetensors"
    save_file({n: t for n, t in tensors.items() if "middle_block.1.norm" not in n}, lost)
    with pytest.raises(AdapterError, match=r"lost\.safetensors cannot be read|Of the"):
        load(lost, bases / "epsilon")
    eighth = tmp_path / "eighth.safetensors"
    save_file({name: one.to(torch.float8_e4m3fn) for name, one in tensors.items()}, eighth)
    with pytest.raises(AdapterError, match="has weights of the type F8_E4M3"):
        load(eighth, bases / "epsilon")
    stranger = tmp_path / "stranger.safetensors"
    save_file({"one.weight": torch.zeros(2, 2)}, stranger)
    with pytest.raises(AdapterError, match=r"of a family that hublora knows.*one\.weight"):
        load(stranger)
    with pytest.raises(AdapterError, match="does not say of which base model it is a version"):
        load(files / "z-image.safetensors")
    with pytest.raises(AdapterError, match=r"has a unet of .* and its components describe one of"):
        load(files / "sd.safetensors", bases / "wide")
    with pytest.raises(AdapterError, match="is of stable-diffusion"):
        load(files / "xl.safetensors", bases / "epsilon")
    with pytest.raises(AdapterError, match="is a pipeline with components of its own"):
        load(bases / "epsilon", bases / "epsilon")
    with pytest.raises(RefError, match="is a pickle file"):
        load(tmp_path / "old.ckpt")
    with pytest.raises(NotFoundError, match="There is no file"):
        load(tmp_path / "none.safetensors")
    several = tmp_path / "several"
    several.mkdir()
    for name in ("a", "b"):
        (several / f"{name}.safetensors").write_bytes(stranger.read_bytes())
    import_folder(hub_data, "someone/several", several)
    with pytest.raises(NotFoundError, match="has 2 single files") as refused:
        load("someone/several")
    assert "someone/several/a.safetensors" in str(refused.value.hint)


def test_a_base_that_is_a_file_is_parsed_and_rendered() -> None:
    ref = BaseRef.parse("me/models/sdxl/x.safetensors", "main", "me/parts@v1")
    assert (ref.repo_id, ref.file, ref.revision) == ("me/models", "sdxl/x.safetensors", "main")
    assert ref.name == "me/models/sdxl/x.safetensors"
    for wrong in (
        "me/models/../x.safetensors",
        "me/models/x.ckpt",
        "me/models/x",
        "me/x.safetensors",
    ):
        with pytest.raises(RefError):
            BaseRef.parse(wrong)
    with pytest.raises(RefError, match="must be the repo id or folder of a pipeline"):
        BaseRef.parse("me/models/x.safetensors", None, "me/parts/y.safetensors")


SHAPE = (8, 4096)
FLUX = {"double_blocks.0.img_attn.qkv.weight": SHAPE, "txt_in.weight": SHAPE}


@pytest.mark.parametrize(
    ("shapes", "family", "base"),
    [
        (
            {**FLUX, "vector_in.in_layer.weight": SHAPE, "guidance_in.in_layer.weight": SHAPE},
            "flux",
            "black-forest-labs/FLUX.1-dev",
        ),
        (
            {**FLUX, "vector_in.in_layer.weight": SHAPE},
            "flux",
            "black-forest-labs/FLUX.1-schnell",
        ),
        (
            {**FLUX, "distilled_guidance_layer.in_proj.weight": SHAPE},
            "chroma",
            "lodestones/Chroma1-HD",
        ),
        ({**FLUX, "double_stream_modulation_img.lin.weight": SHAPE}, "flux2-klein", ""),
        (
            {
                "joint_blocks.0.x_block.attn.qkv.weight": SHAPE,
                "joint_blocks.37.x_block.attn.qkv.weight": SHAPE,
                "context_embedder.weight": SHAPE,
            },
            "stable-diffusion-3",
            "stabilityai/stable-diffusion-3.5-large",
        ),
        (
            {
                "input_blocks.0.0.weight": (320, 4, 3, 3),
                "out.2.weight": (4, 320, 3, 3),
                "label_emb.0.0.weight": (1280, 2816),
                "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
            },
            "stable-diffusion-xl",
            "stabilityai/stable-diffusion-xl-base-1.0",
        ),
        (
            {
                "input_blocks.0.0.weight": (320, 9, 3, 3),
                "out.2.weight": (4, 320, 3, 3),
            },
            "stable-diffusion-inpainting",
            "stable-diffusion-v1-5/stable-diffusion-inpainting",
        ),
    ],
)
def test_headers_tell_the_family(
    shapes: dict[str, tuple[int, ...]], family: str, base: str
) -> None:
    for prefix in ("", "model.diffusion_model.", "diffusion_model."):
        found = family_of_file({prefix + name: shape for name, shape in shapes.items()})
        assert found is not None
        assert (found[0].name, found[1]) == (family, base)
