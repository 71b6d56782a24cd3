"""Share: a run folder ─ merge the card ─ push ─ verify ─▶ user/name@commit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hublora.cards.facts import CardFacts
from hublora.cards.write import merge_card, write_card
from hublora.errors import NotFoundError, VerificationError
from hublora.filesystem import write_atomically
from hublora.generation.metadata import read_image
from hublora.hub.push import PushResult, check_can_push, push_folder, remote_card, verify_files
from hublora.hub.repo_layout import CARD, CONTENTS, WEIGHTS
from hublora.progress import Callback, Note, no_callback

IMAGE = "images/0.png"
CARD_FACTS = ".cache/hublora/card.json"  # as huggingface_hub keeps its own in .cache/huggingface

# Mean difference in 8-bit levels up to which two renderings are the same image: arithmetic in
# another order moves single levels in float32, and a few in half precision.
_TOLERANCE = {"float32": 2.0, "bfloat16": 12.0, "float16": 12.0}


def push(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool = False,
    base: str | None = None,
    callback: Callback = no_callback,
) -> PushResult:
    """Push the repo files of a run folder as one commit and verify what arrived.

    What a person has edited in the repo's card is kept.

    Args:
        folder: A folder that `train` wrote.
        repo_id: owner/name; created if it is not there.
        private: Create it private.
        base: Hub id or folder of the base; the one that the adapter names if not given.
        callback: Is told what happens.

    Raises:
        AccessError: The token may not write there.
        PushError: The push did not complete; the folder is kept.
        VerificationError: What arrived is not what was pushed, or does not draw the same.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in CONTENTS):
        raise NotFoundError(f"{folder} has no {WEIGHTS}.", "Push the folder of a finished run.")
    check_can_push(repo_id)
    refresh_card(folder, repo_id)
    card = folder / CARD
    if card.is_file():
        merged = merge_card(remote_card(repo_id) or "", card.read_text(encoding="utf-8"))
        write_atomically(card, merged)
    callback(Note(f"Pushing to {repo_id} …"))
    pushed = push_folder(folder, repo_id, message="Upload adapter with hublora", private=private)
    callback(Note(f"Verifying {repo_id}@{pushed.commit[:8]} …"))
    verify_pushed(folder, pushed, base=base, callback=callback)
    return pushed


def image_tolerance(dtype: str) -> float:
    """Return up to which mean difference in levels two images drawn in `dtype` are the same."""
    return _TOLERANCE[dtype]


def save_card(folder: Path, facts: CardFacts) -> None:
    """Write the card and keep its facts beside it, so that a push elsewhere can write it anew."""
    write_card(folder, facts, previous=_read(folder / CARD))
    write_atomically(folder / CARD_FACTS, TypeAdapter(CardFacts).dump_json(facts))


def refresh_card(folder: Path, repo_id: str) -> None:
    """Write the card again if it was written for a repo of another name."""
    kept = folder / CARD_FACTS
    if not kept.is_file():
        return
    facts = TypeAdapter(CardFacts).validate_json(kept.read_bytes())
    if facts.repo_id != repo_id:
        save_card(folder, replace(facts, repo_id=repo_id))


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def verify_pushed(
    folder: Path, pushed: PushResult, *, base: str | None = None, callback: Callback = no_callback
) -> None:
    """Check that the commit holds what `folder` holds and draws what it shows.

    Raises:
        VerificationError: It does not; what differs is named.
    """
    verify_files(folder, pushed)
    image = folder / IMAGE
    facts = read_image(image) if IMAGE in pushed.files else {}
    if not facts:
        callback(Note("Verified: every file is as pushed. There is no image to compare."))
        return
    _verify_image(image, facts, pushed, base)
    callback(Note("Verified: every file is as pushed, and the adapter draws the same image."))


def _verify_image(
    path: Path, facts: Mapping[str, Any], pushed: PushResult, base: str | None
) -> None:
    """Draw the image again from the pushed adapter and compare."""
    import torch
    from PIL import Image

    from hublora.generation.generate import generate
    from hublora.generation.sample import Sampling, image_difference, use_scheduler
    from hublora.workflows.load import load

    plan = Sampling(**facts["sampling"])
    dtype = getattr(torch, facts["dtype"])
    pipe = load(f"{pushed.repo_id}@{pushed.commit}", base=base, dtype=dtype)
    use_scheduler(pipe, plan.scheduler)
    (drawn,) = generate(pipe, [plan], facts.get("trigger", "off"))
    with Image.open(path) as shown:
        difference = image_difference(drawn, shown)
    if difference > image_tolerance(facts["dtype"]):
        with tempfile.NamedTemporaryFile(suffix=".png", prefix="hublora-", delete=False) as kept:
            drawn.save(kept)
        raise VerificationError(
            f"{pushed.repo_id}@{pushed.commit[:8]} draws another image than {path.name} "
            f"(they differ by {difference:.1f} levels on average).",
            f"Look at both: {path} and {kept.name}",
        )
