"""Messages name flags to the command line, and keywords to Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import hublora
from hublora.errors import ConfigError
from hublora.flag_names import in_python, speaking_flags
from tests.entry import hublora_cli

__all__ = ["hublora_cli"]

SAID = {
    "Name one: --base owner/name, or --base ./folder.": (
        'Name one: base="owner/name", or base="./folder".'
    ),
    "Name it: --base FOLDER": "Name it: base=FOLDER",
    "Give its file: --adapter FILE": "Give its file: adapters=FILE",
    "--ip-adapter and --ip-adapter-image go together.": (
        "ip_adapter and ip_adapter_image go together."
    ),
    "--strength must be in (0, 1], got 3.": "strength must be in (0, 1], got 3.",
    "Lower --train-batch-size to 3, or --set data.bucket_step=8.": (
        "Lower train_batch_size to 3, or data.bucket_step=8."
    ),
    "Set --learning-rate 1.": "Set optimizer.learning_rate=1.",
    "Leave --push-to-hub out.": "Leave push_to out.",
    "Generate with it: hublora run --base a/b --steps 3": (
        "Generate with it: hublora run --base a/b --steps 3"
    ),
    "a -- b --- c x--y": "a -- b --- c x--y",
}


@pytest.mark.parametrize("text", SAID)
def test_flags_become_keywords_and_commands_stay(text: str) -> None:
    assert in_python(text) == SAID[text]
    error = ConfigError(text)
    assert str(error) == SAID[text]
    with speaking_flags():
        assert in_python(text) == text
        assert str(error) == text


def test_python_is_told_keywords_and_the_command_line_flags(
    hublora_cli: Callable[..., Any],
) -> None:
    with pytest.raises(ConfigError) as caught:
        hublora.run("me/a", "a hill", ip_adapter="me/b")
    said = "ip_adapter and ip_adapter_image go together. Give both or neither."
    assert str(caught.value) == said
    done = hublora_cli("run", "me/a", "a hill", "--ip-adapter", "me/b")
    assert "--ip-adapter and --ip-adapter-image go together." in done.err
    with pytest.raises(ConfigError, match=said):  # the command line has ended
        hublora.run("me/a", "a hill", ip_adapter="me/b")
