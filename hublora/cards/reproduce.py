"""The card's commands that train the adapter again, and the unpublished inputs they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hublora.cards.facts import CardFacts


@dataclass(frozen=True)
class _Own:
    """An input of a training that is not on the Hub.

    Attributes:
        flag: Flag of `hublora train` that takes its path.
        example: Placeholder path.
        what: Noun phrase for a sentence, such as "the images".
    """

    flag: str
    example: str
    what: str


_OWN = {
    "base.model": _Own("--base", "./your-base", "the base model"),
    "base.components": _Own("--components", "./your-components", "the base model's components"),
    "base.generation": _Own(
        "--generation-base", "./your-generation-base", "the base model that images are generated on"
    ),
    "data.folder": _Own("--folder", "./your-images", "the images"),
    "data.archive": _Own("--archive", "./your-images.zip", "the images"),
    "adapter.start_from": _Own(
        "--set adapter.start_from=",
        "./your-adapter.safetensors",
        "the adapter that the training started from",
    ),
    "adapter.assistant": _Own(
        "--assistant", "./your-assistant.safetensors", "the assistant adapter"
    ),
    "dreambooth.class_folder": _Own(
        "--class-data-dir", "./your-class-images", "the images of the class"
    ),
}


def commands(facts: CardFacts) -> dict[str, str | None]:
    """Return the command that trains the adapter again and, if it has a repo, the one that verifies
    the result."""
    own = facts.training.unpublished
    flags = "".join(_argument(_OWN[key].flag, _OWN[key].example) for key in own)
    if facts.repo_id is None:
        return {
            "train": f"hublora train --config {facts.training.config_path}{flags}",
            "verify": None,
        }
    assignments = "".join(f" --set {key}={_OWN[key].example}" for key in own)
    return {
        "train": f"hublora train --from {facts.repo_id}{flags}",
        "verify": f"hublora verify {facts.repo_id} --reproduce{assignments}",
    }


def needs(unpublished: Sequence[str]) -> str | None:
    """Return a sentence about the inputs that are not published; None without any."""
    if not unpublished:
        return None
    things = " and ".join(_OWN[key].what for key in unpublished)
    paths = " and ".join(f"`{_OWN[key].example}`" for key in unpublished)
    return (
        f"Not published, but needed to train it again: {things}. Replace {paths} by your own path."
    )


def _argument(flag: str, value: str) -> str:
    return f" {flag}{value}" if flag.endswith("=") else f" {flag} {value}"
