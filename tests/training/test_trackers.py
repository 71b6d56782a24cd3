"""Trackers get the curve that the history has; a missing one is refused before any work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

import hublora
from hublora.errors import ConfigError
from hublora.training.trackers import choose_trackers


class Notebook(GeneralTracker):
    """A tracker of a user's own, as accelerate documents them."""

    name = "notebook"
    requires_logging_directory = True
    last: Notebook

    def __init__(self, run_name: str, logging_dir: str, **_: Any) -> None:
        super().__init__()
        self.where = Path(logging_dir)
        self.rows: list[tuple[int | None, Mapping[str, float]]] = []
        self.settings: Mapping[str, Any] = {}
        self.finished = False
        self.arguments = list(sys.argv)
        Notebook.last = self

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def _notebook() -> Iterator[None]:
    LOGGER_TYPE_TO_CLASS["notebook"] = Notebook
    get_available_trackers().append("notebook")
    yield
    get_available_trackers().remove("notebook")
    del LOGGER_TYPE_TO_CLASS["notebook"]


@pytest.mark.usefixtures("_notebook")
def test_trackers_get_every_step_and_are_closed(settings: Callable) -> None:
    import json

    result = hublora.train(settings(report_to=["notebook"], validation__prompts=["x"]))
    seen = Notebook.last
    lines = (result.folder / "training/history.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert seen.rows == [(row["step"], {"loss": row["loss"], "lr": row["lr"]}) for row in rows]
    assert seen.settings["optimizer.learning_rate"] == 1e-3
    assert all(isinstance(value, int | float | str | bool) for value in seen.settings.values())
    assert seen.where == result.folder / "logs"
    assert seen.finished


@pytest.mark.usefixtures("_notebook")
def test_trackers_get_no_paths_of_this_machine_and_no_signatures(
    settings: Callable, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(
        base__model=str(bases / "epsilon"),
        data__dataset=None,
        data__folder=bases / "images",
        data__cache_dir=tmp_path / "cache",
        schedule__max_train_steps=1,
        validation__num_images=1,
        report_to=["notebook"],
    )
    monkeypatch.setattr(sys, "argv", ["hublora", "train", "--archive", "https://x.org/?s=secret"])
    hublora.train(config)
    assert Notebook.last.arguments == ["hublora"]
    assert len(sys.argv) == 4
    seen = Notebook.last.settings
    assert (seen["base.model"], seen["data.folder"]) == ("epsilon", "images")
    assert not [key for key, value in seen.items() if str(tmp_path) in f"{value}"]
    assert not [key for key, value in seen.items() if str(bases) in f"{value}"]


@pytest.mark.parametrize(
    "url",
    ["https://me:secret@x.org/a.zip", "https://x.org/a.zip?s=secret", "https://x.org/a.zip#secret"],
)
def test_what_may_be_shared_has_no_secret_of_an_address(settings: Callable, url: str) -> None:
    config = settings(data__dataset=None, data__archive=url)
    assert config.shareable()["data"]["archive"] == "https://x.org/a.zip"


def test_no_tracker_by_default() -> None:
    assert choose_trackers([]) == []
    assert choose_trackers(["none"]) == []


def test_a_tracker_that_does_not_exist_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="'wandbb'") as caught:
        choose_trackers(["wandbb"])
    assert "wandb" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "comet_ml"])
def test_a_tracker_that_is_not_installed_says_how_to_install_it(
    name: str, settings: Callable
) -> None:
    if name in [str(one) for one in get_available_trackers()]:
        pytest.skip(f"{name} is installed")
    reported: list[object] = []
    with pytest.raises(ConfigError) as caught:
        hublora.train(settings(report_to=[name]), callback=reported.append)
    package = name if name == "comet_ml" else f"'hublora[{name}]'"
    assert caught.value.hint == f"Install it: pip install {package}"
    assert not reported, "before any work"


def test_tensorboard_shows_the_curve_and_the_previews(settings: Callable) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = hublora.train(settings(report_to=["tensorboard"], validation__steps=2))
    (folder,) = (result.folder / "logs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("validation")] == [2]
