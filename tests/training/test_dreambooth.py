"""DreamBooth: plain images under one prompt, and class images that are generated once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hublora
from hublora.errors import ConfigError
from hublora.progress import Note
from hublora.training.losses import training_losses
from hublora.training.session import Session
from tests.tiny import save_images

SUBJECT = {
    "method": "dreambooth",
    "data__dataset": None,
    "dreambooth__instance_prompt": "a photo of sks cat",
    "dreambooth__prior_preservation": True,
    "dreambooth__class_prompt": "a photo of a cat",
    "dreambooth__num_class_images": 3,
}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder of images and nothing else."""
    folder = save_images(tmp_path / "subject", 3)
    (folder / "metadata.jsonl").unlink()
    return folder


def test_class_images_are_generated_once(settings, plain: Path, tmp_path: Path) -> None:
    def train(name: str, **changes) -> list[str]:
        config = settings(
            **SUBJECT,
            data__folder=plain,
            data__cache_dir=tmp_path / "cache",
            schedule__max_train_steps=1,
            validation__num_inference_steps=1,
            output_dir=tmp_path / name,
            **changes,
        )
        notes: list[str] = []
        hublora.train(config, callback=lambda one: notes.append(getattr(one, "text", "")))
        return [text for text in notes if text.startswith("Generating ")]

    assert "Generating 3 class images of 'a photo of a cat'" in train("first")[0]
    (folder,) = (tmp_path / "cache" / "class").iterdir()
    generated = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(set(generated.values())) == 3
    (folder / "00001.png").unlink()
    assert "Generating 1 class image of" in train("second")[0], "the others are reused"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == generated
    card = (tmp_path / "second" / "README.md").read_text()
    assert "instance_prompt: sks cat\n" in card
    assert "| class images | 3 |" in card
    assert "| Images | 3 |" in card, "those of the class are not counted"


def test_a_folder_of_ones_own_is_filled_up(settings, plain: Path, tmp_path: Path) -> None:
    own = save_images(tmp_path / "class", 2)
    (own / "damaged.png").write_bytes(b"")
    before = (own / "0.png").read_bytes()
    config = settings(
        **SUBJECT,
        data__folder=plain,
        dreambooth__class_folder=own,
        schedule__max_train_steps=1,
        validation__num_inference_steps=1,
    )
    notes: list[Note] = []
    hublora.train(config, callback=notes.append)
    texts = [getattr(one, "text", "") for one in notes]
    assert any("Generating 1 class image of" in text for text in texts)
    assert any("damaged.png is empty (0 bytes)" in text for text in texts)
    assert (own / "0.png").read_bytes() == before
    assert len(list(own.glob("*.png"))) == 4


def test_the_loss_is_that_of_the_image_and_the_weighted_one_of_its_class(
    start: Callable[..., Session],
) -> None:
    changes = {"method": "dreambooth", "dreambooth__prior_preservation": True}
    changes |= {"dreambooth__class_prompt": "a cat", "dreambooth__prior_weight": 0.25}
    changes |= {"dreambooth__instance_prompt": "a sks cat"}
    both = start(class_images=2, **changes)
    assert [list(stream.images) for stream in both.streams] == [[0, 1, 2, 3], [4, 5]]
    generator = torch.Generator()
    numbers = range(3)
    total, timesteps = training_losses(both, numbers, generator)
    streams, parts = both.streams, []
    for stream in streams:
        both.streams = (stream,)
        parts.append(training_losses(both, numbers, generator)[0])
    assert torch.allclose(total, parts[0] + 0.25 * parts[1])
    assert (parts[1] > 0).all()
    assert timesteps.shape == (3,)


def test_captions_stay_where_their_column_is_named(start: Callable[..., Session]) -> None:
    prompt = {"method": "dreambooth", "dreambooth__instance_prompt": "a photo of sks cat"}
    assert set(start(**prompt).data.captions) == {("a photo of sks cat",)}
    # Captions that lack the subject are refused: it would not be learned.
    prompt["dreambooth__instance_prompt"] = "a photo of star"
    named = start(**prompt, data__caption_column="text").data.captions
    assert len(set(named)) == 6


def test_a_dry_run_generates_nothing_and_counts_what_is_missing(
    settings, plain: Path, tmp_path: Path
) -> None:
    from hublora.workflows.train.dry_run import dry_run

    cache = tmp_path / "cache"
    found = dry_run(settings(**SUBJECT, data__folder=plain, data__cache_dir=cache))
    assert found.class_images == 3
    assert not (cache / "class").exists()


def test_the_prompt_is_asked_for_before_any_work(settings, plain: Path) -> None:
    alone = {"method": "dreambooth", "data__dataset": None, "data__folder": plain}
    with pytest.raises(ConfigError, match=r"dreambooth\.instance_prompt"):
        settings(**alone)
    assert settings(**alone, data__caption_column="text").dreambooth.instance_prompt is None
