"""A training in the folder of its images never trains on what hublora wrote there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import hublora
from hublora.data import DataConfig, open_source
from hublora.data.folder import list_images
from hublora.filesystem import OWN_FOLDER
from hublora.generation.metadata import save_image
from hublora.progress import Note
from hublora.training.config.training_config import TrainingConfig
from tests.data import images as noise


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(noise.png(seed))


def test_results_in_the_folder_of_images_are_not_trained_on(
    settings: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pics = tmp_path / "pics"
    for seed in range(3):
        save(pics / f"{seed}.png", seed)
    monkeypatch.chdir(pics)
    config = settings(
        data__dataset=None,
        data__folder=".",
        output_dir=None,
        method="dreambooth",
        dreambooth__instance_prompt="a photo of sks thing",
        schedule__max_train_steps=2,
        validation__num_images=1,
        validation__steps=1,
        checkpoint__steps=1,
    )
    first = hublora.train(config).folder
    assert first == Path("runs/pics-lora")
    assert len(list(first.rglob("*.png"))) > 2
    events: list[object] = []
    resumed = hublora.train(config, resume=str(first / "checkpoint-1"), callback=events.append)
    assert (resumed.folder, resumed.steps) == (first, 1)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "Data: pics, 3 images" in notes
    assert "Results of hublora are not read as images: runs/pics-lora." in notes
    assert [image.name for image in list_images(Path())] == ["0.png", "1.png", "2.png"]


def test_metadata_in_a_folder_of_results_is_not_read(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)
    (tmp_path / "a.txt").write_text("a star")
    for marker in ("lock", "results.json", "card.json"):
        run = tmp_path / marker
        save(run / "b.png", 1)
        (run / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "a moon"}\n')
        (run / OWN_FOLDER).mkdir(parents=True)
        (run / OWN_FOLDER / marker).touch()
    assert [one.captions for one in open_source(DataConfig(folder=tmp_path)).examples] == [
        ("a star",)
    ]


def test_a_folder_of_results_that_is_named_itself_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)
    (tmp_path / "a.txt").write_text("a star")
    (tmp_path / ".cache" / "hublora").mkdir(parents=True)
    (tmp_path / ".cache" / "hublora" / "lock").touch()
    source = open_source(DataConfig(folder=tmp_path))
    assert [one.name for one in source.examples] == ["a.png"]


def test_generated_images_are_named(tmp_path: Path) -> None:
    from PIL import Image

    save(tmp_path / "a.png", 0)
    save_image(Image.new("RGB", (32, 32)), tmp_path / "b.png", {"sampling": {"prompt": "a star"}})
    source = open_source(DataConfig(folder=tmp_path, default_caption="a star"))
    assert [one.name for one in source.examples] == ["a.png", "b.png"]
    said = "hublora generated 1 of 2 images, and they are trained on like the others: b.png."
    assert said in source.notes
