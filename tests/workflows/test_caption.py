"""`hublora caption`: every image gets a .txt, a stopped run goes on, the result is a dataset."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from PIL import Image

from hublora.data import DataConfig, open_source
from hublora.errors import ConfigError, DataError, NotFoundError
from hublora.workflows.caption import caption

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "red", "blue", "cat", "tree"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP captioner of some kilobytes with random weights, saved as transformers saves one."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("captioner")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    ids = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = size | ids | {"vocab_size": len(WORDS), "num_attention_heads": 2, "is_decoder": True}
    text |= {"encoder_hidden_size": 16, "projection_dim": 16, "max_position_embeddings": 64}
    vision = size | {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    torch.manual_seed(1)
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, colour in (("a.png", "red"), ("b.jpg", "blue"), ("more/c.png", "green")):
        Image.new("RGB", (40, 30), colour).save(folder / name)
    return folder


def captions(folder: Path) -> dict[str, str]:
    found = sorted(folder.rglob("*.txt"))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_each_image_of_a_folder_gets_its_caption_beside_it(photos: Path, model: Path) -> None:
    done = caption(str(photos), model=str(model), prefix="sks dog, ", device="cpu")
    assert (done.folder, done.written, done.kept, done.skipped) == (photos, 3, 0, 0)
    written = captions(photos)
    assert list(written) == ["a.txt", "b.txt", "more/c.txt"]
    assert all(text.startswith("sks dog, ") and text.endswith("\n") for text in written.values())
    words = " ".join(written.values()).replace("sks dog,", "").split()
    assert words
    assert set(words) <= set(WORDS)
    source = open_source(DataConfig(folder=photos, cache_dir=photos.parent / "cache"))
    assert [example.captions[0] + "\n" for example in source.examples] == list(written.values())


def test_what_has_a_caption_keeps_it(photos: Path, model: Path) -> None:
    (photos / "a.txt").write_text("mended by hand")
    done = caption(str(photos), model=str(model), device="cpu")
    assert (done.written, done.kept) == (2, 1)
    assert captions(photos)["a.txt"] == "mended by hand"
    done = caption(str(photos), model="no/such-model")  # nothing to do: no model is fetched
    assert (done.written, done.kept) == (0, 3)
    done = caption(str(photos), model=str(model), overwrite=True, device="cpu")
    assert (done.written, done.kept) == (3, 0)
    assert captions(photos)["a.txt"] != "mended by hand"


def test_captions_do_not_depend_on_the_batch(photos: Path, model: Path) -> None:
    caption(str(photos), model=str(model), batch_size=1, device="cpu")
    one_by_one = captions(photos)
    caption(str(photos), model=str(model), batch_size=3, overwrite=True, device="cpu")
    assert captions(photos) == one_by_one


def test_a_damaged_image_is_named_and_the_others_are_captioned(photos: Path, model: Path) -> None:
    (photos / "b.jpg").write_bytes(b"")
    events: list[object] = []
    done = caption(str(photos), model=str(model), device="cpu", callback=events.append)
    assert (done.written, done.skipped) == (2, 1)
    assert any("b.jpg" in str(one) for one in events)


def test_a_zip_is_captioned_into_a_folder(photos: Path, model: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in photos.rglob("*.*"):
            opened.write(path, path.relative_to(photos))
    done = caption(str(archive), model=str(model), output=tmp_path / "out", device="cpu")
    assert done.written == 3
    assert (tmp_path / "out" / "a.png").read_bytes() == (photos / "a.png").read_bytes()
    assert list(captions(tmp_path / "out")) == ["a.txt", "b.txt", "more/c.txt"]


def test_a_dataset_of_the_hub_becomes_a_captioned_one(
    hub: object, model: Path, tmp_path: Path
) -> None:
    done = caption(
        "bases/images",
        model=str(model),
        output=tmp_path / "out",
        push_to="me/captioned",
        device="cpu",
    )
    assert done.pushed is not None
    source = open_source(DataConfig(dataset="me/captioned", cache_dir=tmp_path / "cache"))
    assert source.revision == done.pushed.commit
    assert len(source.examples) == done.written > 1
    card = HfApi().dataset_info("me/captioned", revision=done.pushed.commit).card_data
    assert card is not None
    assert "imagefolder" in card.tags


def test_files_of_somebody_else_in_the_output_folder_stay(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in photos.rglob("*.*"):
            archive.write(path, path.relative_to(photos))
    output = tmp_path / "mine"
    output.mkdir()
    Image.new("RGB", (40, 30), "black").save(output / "a.png")
    (output / "b.txt").symlink_to(output / "nowhere")
    before = (output / "a.png").read_bytes()
    with pytest.raises(ConfigError, match=r"a.png is another file"):
        caption(str(tmp_path / "photos.zip"), model=str(model), output=output)
    assert (output / "a.png").read_bytes() == before
    assert not (output / "a.txt").exists()
    (output / "a.png").unlink()
    done = caption(str(tmp_path / "photos.zip"), model=str(model), output=output)
    assert (done.written, done.kept) == (2, 1)
    assert (output / "b.txt").is_symlink()
    assert not (output / "nowhere").exists()


def test_a_model_from_the_hub_is_pinned_and_its_pickles_stay_there(
    hub: object, hub_data: Path, model: Path, photos: Path
) -> None:
    from hublora.localhub import import_folder

    import_folder(hub_data, "me/captioner", model)
    events: list[object] = []
    caption(str(photos), model="me/captioner", device="cpu", callback=events.append)
    commit = HfApi().model_info("me/captioner").sha
    assert commit
    assert any(f"me/captioner@{commit[:8]}" in str(one) for one in events)
    assert len(captions(photos)) == 3

    HfApi().delete_file("model.safetensors", "me/captioner")
    HfApi().upload_file(
        path_or_fileobj=b"x", path_in_repo="pytorch_model.bin", repo_id="me/captioner"
    )
    with pytest.raises(NotFoundError, match="no safetensors"):
        caption(str(photos), model="me/captioner", overwrite=True, device="cpu")


def test_what_is_no_captioner_is_said_in_a_sentence(photos: Path, bases: Path) -> None:
    with pytest.raises(DataError) as caught:
        caption(str(photos), model=str(bases / "epsilon"), device="cpu")
    assert "\n" not in str(caught.value)
    assert captions(photos) == {}


def test_two_images_cannot_share_a_caption(photos: Path) -> None:
    Image.new("RGB", (8, 8)).save(photos / "a.bmp")
    with pytest.raises(DataError, match="share the caption file"):
        caption(str(photos))


def test_the_command_shows_what_it_wrote_and_what_comes_next(
    photos: Path, model: Path, hublora_cli: Callable[..., Any]
) -> None:
    Image.new("RGB", (40, 30), "white").save(photos / "d e.png")
    done = hublora_cli("caption", str(photos), "--model", str(model), "--prefix", "sks, ")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    written = captions(photos)
    assert lines[1:4] == [
        f"  {name}: {written[Path(name).with_suffix('.txt').as_posix()].strip()}"
        for name in ("a.png", "b.jpg", "d e.png")
    ]
    assert lines[4] == "  … and 1 more"
    assert lines[5].endswith(f"then train: hublora train --base … --folder {photos}")


def test_a_hub_without_the_captioning_model_says_where_to_get_it(
    photos: Path, hublora_cli: Callable[..., Any]
) -> None:
    done = hublora_cli("caption", str(photos))
    assert done.status == 1
    assert "The captioning model Salesforce/blip-image-captioning-base is not on this" in done.err
    assert "HF_ENDPOINT=https://huggingface.co hf download Salesforce/blip" in done.err
