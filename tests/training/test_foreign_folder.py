"""A training writes only into new folders and folders of earlier trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import hublora
from hublora import TrainingConfig
from hublora.errors import ConfigError
from hublora.training.run_folder import check_own

FOREIGN = (
    "README.md",
    "images/cat.png",
    "comfyui/main.py",
    "embeddings/mine.pt",
    "checkpoint-3/model.safetensors",
    "training/notes.txt",
    ".git/HEAD",
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_with_other_files_is_refused_and_untouched(
    settings: Callable[..., TrainingConfig], tmp_path: Path, name: str
) -> None:
    file = tmp_path / "project" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    before = contents(tmp_path / "project")
    with pytest.raises(ConfigError, match="output_dir must be a new folder") as caught:
        hublora.train(settings(output_dir=tmp_path / "project"))
    assert name.split("/")[0] in caught.value.message
    assert contents(tmp_path / "project") == before


def test_new_folders_and_those_of_earlier_trainings_are_taken(
    settings: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    check_own(tmp_path / "empty")
    check_own(tmp_path / "missing")
    config = settings(schedule__max_train_steps=1, validation__num_images=1)
    first = hublora.train(config).folder
    check_own(first)
    assert (first / "README.md").is_file()


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="must be a folder"):
        check_own(tmp_path / "file")
