"""Loading is quiet, and only about what nobody needs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hublora
from hublora.quiet import quiet_loading


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What transformers logs, with its bars and diffusers' on."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    library, level = logging.getLogger("transformers"), of_transformers.get_verbosity()
    bars = of_diffusers.is_progress_bar_enabled()
    of_transformers.set_verbosity_warning()
    of_diffusers.enable_progress_bar()
    library.addHandler(handler)
    yield records
    library.removeHandler(handler)
    of_transformers.set_verbosity(level)
    if not bars:
        of_diffusers.disable_progress_bar()


def test_loading_prints_no_bars_and_leaves_them_on(said: list[str], capfd: Any) -> None:
    from diffusers.utils import logging as of_diffusers

    hublora.load(base="bases/epsilon")
    assert "it/s" not in capfd.readouterr().err
    assert of_diffusers.is_progress_bar_enabled()


def test_pushing_prints_no_bars_and_leaves_them_on(
    publish: Any, capfd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    hublora.compose([publish("quiet-ink", 1)], output=tmp_path / "mix", gallery=False)
    switch = sys.modules[are_progress_bars_disabled.__module__]
    monkeypatch.setattr(switch, "HF_HUB_DISABLE_PROGRESS_BARS", None)  # which tests have set
    monkeypatch.setattr(switch, "progress_bar_states", {})
    monkeypatch.setenv("TQDM_POSITION", "-1")  # bars without a terminal
    enable_progress_bars()
    hublora.push(tmp_path / "mix", "me/quiet-mix")
    assert "B/s" not in capfd.readouterr().err
    assert not are_progress_bars_disabled()


def test_only_what_nobody_needs_is_not_said(said: list[str]) -> None:
    logger = logging.getLogger("transformers.a_test")
    with quiet_loading():
        logger.warning("`X` requires torchvision (not installed); falling back to `Y`.")
        logger.warning("some weights are of another shape")
    logger.warning("`Z` requires torchvision (not installed).")
    assert said == [
        "some weights are of another shape",
        "`Z` requires torchvision (not installed).",
    ]


def test_training_from_python_prints_progress_and_nothing_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers.utils import logging as of_diffusers

    from hublora.progress import no_callback

    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    level = of_diffusers.get_verbosity()
    of_diffusers.set_verbosity_warning()
    settings = {
        "base.model": "bases/epsilon",
        "data.dataset": "bases/images",
        "schedule.max_train_steps": 1,
        "validation.num_images": 1,
        "validation.num_inference_steps": 1,
    }
    for name, how in (("default", {}), ("silent", {"callback": no_callback})):
        chosen = hublora.TrainingConfig.from_settings({**settings, "output_dir": tmp_path / name})
        hublora.train(chosen, **how)
        said = capsys.readouterr().err
        assert ("Training: 1/1  loss " in said) == (name == "default")
        assert ("weights on 6 images for 1 step of 1 image" in said) == (name == "default")
        assert len(list((tmp_path / name / "images").glob("[0-9]*.png"))) == 1
    logging.getLogger("diffusers").removeHandler(handler)
    of_diffusers.set_verbosity(level)
    assert not [record for record in records if "float32" in record]
