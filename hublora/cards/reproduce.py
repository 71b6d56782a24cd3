"""What a card says of making an adapter again: the commands, and what is needed for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hublora.cards.facts import CardFacts


@dataclass(frozen=True)
class _Own:
    """How a command names something that is not on the Hub.

    Attributes:
        flag: Of `hublora train`.
        example: A path to stand for one's own.
        what: It, as the part of a sentence.
    """

    flag: str
    example: str
    what: str


_OWN = {
    "base.model": _Own("--base", "./your-base", "the base model"),
    "data.folder": _Own("--folder", "./your-images", "the images"),
    "data.archive": _Own("--archive", "./your-images.zip", "the images"),
    "adapter.start_from": _Own(
        "--set adapter.start_from=", "./your-adapter.safetensors", "the adapter that it began with"
    ),
    "dreambooth.class_folder": _Own(
        "--class-data-dir", "./your-class-images", "the images of the class"
    ),
}


def commands(facts: CardFacts) -> dict[str, str | None]:
    """Return the command that trains the adapter again and, of a repo, the one that compares."""
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
    """Return a sentence about what only those have whom its author gave it; None without any."""
    if not unpublished:
        return None
    things = " and ".join(_OWN[key].what for key in unpublished)
    paths = " and ".join(f"`{_OWN[key].example}`" for key in unpublished)
    return (
        f"It was made with something that is not published: {things}. Whoever has that writes "
        f"where it is in place of {paths}."
    )


def _argument(flag: str, value: str) -> str:
    return f" {flag}{value}" if flag.endswith("=") else f" {flag} {value}"
