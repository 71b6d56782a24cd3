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


def test_files_that_a_person_put_into_a_run_folder_outlive_the_next_results(
    settings: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    config = settings(validation__num_images=1)
    folder = hublora.train(config).folder
    own = {"images/cat.png": "mine", "comfyui/other.safetensors": "mine", "notes.md": "mine"}
    for name, text in own.items():
        (folder / name).write_text(text)
    changed = folder / "images" / "0.png"
    changed.write_text("edited by a person")
    events: list[object] = []
    hublora.train(config, resume="latest", callback=events.append)
    for name, text in own.items():
        assert (folder / name).read_text() == text
    assert (folder / "images" / "0 (1).png").read_text() == "edited by a person"
    assert changed.read_bytes().startswith(b"\x89PNG")
    assert any("0 (1).png" in str(event) for event in events)


def test_results_of_an_earlier_training_are_replaced(
    settings: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    many = settings(validation__prompts=["a star"], validation__num_images=3)
    folder = hublora.train(many).folder
    assert (folder / "images" / "2.png").is_file()
    few = settings(validation__prompts=["a star"], validation__num_images=1)
    hublora.train(few, resume="latest")
    assert sorted(path.name for path in (folder / "images").glob("*")) == [
        "0.png",
        "before-after.png",
        "validation.png",
    ]


def test_checkpoints_leave_what_is_not_theirs(
    settings: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    notes, other = run / "checkpoint-1" / "notes.txt", run / "checkpoint-3" / "model.safetensors"

    def interfere(event: object) -> None:
        if notes.parent.exists() and not notes.exists():
            notes.write_text("mine")
        if run.exists() and not other.parent.exists():
            other.parent.mkdir()
            other.write_text("mine, too")

    config = settings(
        output_dir=run,
        schedule__max_train_steps=3,
        checkpoint__steps=1,
        checkpoint__total_limit=1,
    )
    hublora.train(config, callback=interfere)
    assert (run / "checkpoint-1 (1)" / "notes.txt").read_text() == "mine"
    assert (run / "checkpoint-3 (1)" / "model.safetensors").read_text() == "mine, too"
    assert [path.name for path in run.glob("checkpoint-?")] == ["checkpoint-3"]
    assert (run / "checkpoint-3" / "state.json").is_file()
