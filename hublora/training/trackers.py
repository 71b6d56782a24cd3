"""Experiment trackers (TensorBoard, Weights & Biases, …) through accelerate; none by default."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from hublora.errors import ConfigError

PROJECT = "hublora"
_EXTRAS = ("tensorboard", "trackio", "wandb")  # of hublora's own package

# Tracker -> how its `log_images` takes images as [1, h, w, 3]; the others get numbers only.
_IMAGE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "tensorboard": {"dataformats": "NHWC"},
    "wandb": {},
}


def choose_trackers(names: Iterable[str]) -> list[str]:
    """Return the trackers that `report_to` names; "all" is every installed one, "none" is none.

    Raises:
        ConfigError: A tracker is unknown, or its package is not installed.
    """
    installed = [str(name) for name in get_available_trackers()]
    chosen: list[str] = []
    for name in names:
        if name == "all":
            chosen += installed
        elif name in installed:
            chosen.append(name)
        elif name in LOGGER_TYPE_TO_CLASS:
            package = f"'hublora[{name}]'" if name in _EXTRAS else name
            raise ConfigError(
                f"The tracker {name} is not installed.", f"Install it: pip install {package}"
            )
        elif name != "none":
            known = ", ".join([*LOGGER_TYPE_TO_CLASS, "all", "none"])
            raise ConfigError(f"Unknown tracker {name!r}.", f"Choose from {known}.")
    return list(dict.fromkeys(chosen))


class Trackers:
    """The trackers of one training; without any, every method does nothing.

    Each of accelerate's trackers acts on the main process only.

    Args:
        accelerator: Accelerator that was made with the chosen trackers.
        settings: Settings under dotted keys that may be shared, logged as the run's config.
    """

    def __init__(self, accelerator: Accelerator, settings: Mapping[str, Any]) -> None:
        self._accelerator = accelerator
        if accelerator.log_with:
            plain = {key: _plain(value) for key, value in settings.items() if value is not None}
            with redirect_stdout(sys.stderr), _no_arguments():  # stdout is for data; some greet
                _init_trackers(accelerator, plain)

    def log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows of the metrics log."""
        for row in rows:
            values = {key: value for key, value in row.items() if isinstance(value, float)}
            self._accelerator.log(values, step=row["step"])

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Log an image file; trackers that take no images are left out."""
        shown = [one for one in self._accelerator.trackers if one.name in _IMAGE_OPTIONS]
        if not shown:
            return
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))[None]
        for tracker in shown:
            tracker.log_images({name: pixels}, step=step, **_IMAGE_OPTIONS[tracker.name])

    def close(self) -> None:
        """Finish the trackers, which write what they have buffered."""
        with redirect_stdout(sys.stderr):
            for tracker in self._accelerator.trackers:
                tracker.finish()
        self._accelerator.trackers.clear()


@contextmanager
def _no_arguments() -> Iterator[None]:
    """Hide the arguments of the command line, which some trackers upload by themselves."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments


def _init_trackers(accelerator: Accelerator, settings: Mapping[str, Any]) -> None:
    try:
        accelerator.init_trackers(PROJECT, config=dict(settings))
    except ImportError as error:
        names = ", ".join(str(name) for name in accelerator.log_with)
        raise ConfigError(
            f"The tracker {names} cannot be loaded: {error}.", "Install it again, or leave it out."
        ) from error


def _plain(value: Any) -> int | float | str | bool:
    return value if isinstance(value, int | float | str | bool) else str(value)
