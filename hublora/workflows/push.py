"""Pushes a run folder: merge the card ─ push ─ verify ─▶ user/name@commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from hublora.cards.facts import CardFacts
from hublora.cards.write import merge_card, write_card
from hublora.errors import NotFoundError
from hublora.filesystem import RUN_CARD, write_atomically
from hublora.hub.push import PushResult, check_can_push, files_kept, push_folder, remote_card
from hublora.hub.repo_layout import CARD, CONTENTS, WEIGHTS
from hublora.progress import Callback, Note, default_callback
from hublora.workflows.verify import verify_push


def push(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool = False,
    base: str | None = None,
    callback: Callback = default_callback,
) -> PushResult:
    """Push the repo files of a run folder as one commit and verify what arrived.

    Sections of the repo's card that a person has edited are kept.

    Args:
        folder: A folder that `train`, `merge` or `compose` wrote.
        repo_id: owner/name, or the name alone of a repo of one's own; created if it does not
            exist.
        private: Whether a repo that is created becomes private.
        base: Hub id or folder of the base; None for the one that the images record.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        AccessError: The token may not write there.
        PushError: The push did not complete; the folder is unchanged.
        VerificationError: The commit differs from the folder, or generates another image.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in CONTENTS):
        raise NotFoundError(f"{folder} has no {WEIGHTS}.", "Push the folder of a finished run.")
    with files_kept(folder, repo_id):
        checked = check_can_push(repo_id)
        current_card = remote_card(checked) or ""
    refresh_card(folder, checked)
    card = folder / CARD
    if card.is_file():
        merged = merge_card(current_card, card.read_text(encoding="utf-8"))
        write_atomically(card, merged)
    callback(Note(f"Pushing to {checked} …"))
    pushed = push_folder(folder, checked, message="Upload adapter with hublora", private=private)
    callback(Note(f"Verifying {checked}@{pushed.commit[:8]} …"))
    verify_push(folder, pushed, base=base, callback=callback)
    return pushed


def save_card(folder: Path, facts: CardFacts) -> None:
    """Write the card, and its facts, so that a push to another repo can write it again."""
    write_card(folder, facts, previous=_read(folder / CARD))
    write_atomically(folder / RUN_CARD, TypeAdapter(CardFacts).dump_json(facts))


def refresh_card(folder: Path, repo_id: str) -> None:
    """Write the card again if it was written for another repo."""
    kept = folder / RUN_CARD
    if not kept.is_file():
        return
    facts = TypeAdapter(CardFacts).validate_json(kept.read_bytes())
    if facts.repo_id != repo_id:
        save_card(folder, replace(facts, repo_id=repo_id))


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
