"""Small and odd sets of images are trained on, or refused before any long work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hublora
from hublora.errors import ConfigError, DataError
from hublora.training.config.training_config import TrainingConfig
from tests.tiny import save_images

Settings = Callable[..., TrainingConfig]
LITTLE = {"validation__num_images": 1, "validation__num_inference_steps": 1}


@pytest.fixture
def album(tmp_path: Path) -> Callable[..., Path]:
    """Save images with a caption each."""

    def make(*captions: str, side: int = 64) -> Path:
        folder = save_images(tmp_path / "album", count=len(captions), side=side)
        (folder / "metadata.jsonl").unlink()
        for number, caption in enumerate(captions):
            (folder / f"{number}.txt").write_text(caption)
        return folder

    return make


def refusal(config: TrainingConfig, kind: type[Exception]) -> str:
    reported: list[Any] = []
    with pytest.raises(kind) as caught:
        hublora.train(config, callback=reported.append)
    assert not any(getattr(one, "name", "") == "Encoding" for one in reported), "no work before"
    return str(caught.value)


def test_one_small_image_with_a_caption_in_another_language_is_trained_on(
    settings: Settings, album: Callable[..., Path]
) -> None:
    reported: list[Any] = []
    config = settings(
        data__dataset=None,
        data__folder=album("写真の猫, 赤い, 小さい", side=40),
        data__aspect_buckets=True,
        data__shuffle_tags=True,
        data__repeats=3,
        train_batch_size=4,
        schedule__max_train_steps=2,
        **LITTLE,
    )
    result = hublora.train(config, callback=reported.append)
    assert result.final_loss > 0
    notes = [one.text for one in reported if hasattr(one, "text")]
    assert "Images by shape (width×height): 1 of 64×64" in notes
    assert any(note.startswith("1 of 1 images is upscaled") for note in notes)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"holdout__images": 1}, ConfigError, "holds out the only image"),
        ({"holdout__images": 0.1}, ConfigError, "holds out the only image"),
        ({"data__masks": True}, DataError, "No image of album has a mask"),
        ({"data__folder_repeats": True}, DataError, "no folder has a name such as"),
        (
            {"data__aspect_buckets": True, "data__bucket_batch": 3, "train_batch_size": 2},
            ConfigError,
            "train_batch_size=2 does not divide",
        ),
    ],
)
def test_what_one_image_cannot_do_is_said_before_any_work(
    settings: Settings,
    album: Callable[..., Path],
    changes: dict[str, Any],
    kind: type[Exception],
    said: str,
) -> None:
    folder = album("a")
    assert said in refusal(settings(data__dataset=None, data__folder=folder, **changes), kind)


def test_a_streamed_dataset_is_held_out_and_trained_on_in_buckets(start: Any) -> None:
    from hublora.training.events import StepDone
    from hublora.training.loop import train

    session = start(
        data__streaming=True,
        data__max_train_samples=4,
        data__aspect_buckets=True,
        holdout__images=1,
        schedule__max_train_steps=2,
    )
    assert (len(session.data), len(session.held_out_indices)) == (4, 1)
    done = [event for event in train(session) if isinstance(event, StepDone)]
    assert [event.measure is not None for event in done] == [True, True]


def test_only_damaged_images_are_refused(settings: Settings, album: Callable[..., Path]) -> None:
    folder = album("a", "b")
    for path in folder.glob("*.png"):
        path.write_bytes(path.read_bytes()[:99])
    said = refusal(settings(data__dataset=None, data__folder=folder), DataError)
    assert said.startswith("None of the 2 images of album can be used: 0.png is damaged")
