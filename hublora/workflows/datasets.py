"""Share pictures with a .txt beside each as a dataset that `--dataset owner/name` trains on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hublora.cards import wording
from hublora.cards.dataset import dataset_card
from hublora.hub.layout import CARD
from hublora.hub.push import Pushed
from hublora.hub.push_dataset import push_dataset_files
from hublora.workflows.progress import Note, Observer, ignore


def push_dataset(
    folder: Path,
    pictures: Sequence[str],
    repo_id: str,
    *,
    captioned_by: str | None = None,
    private: bool = False,
    observer: Observer = ignore,
) -> Pushed:
    """Push the pictures that have a caption as an image folder with metadata.jsonl and a card.

    Args:
        folder: Holds the pictures and, beside each, its .txt.
        pictures: Paths inside it.
        repo_id: owner/name of the dataset repo; created if it is not there.
        captioned_by: The captioning model, for the card.
        private: Create it private.
        observer: Is told what happens.

    Raises:
        HubloraError: As `push_dataset_files`.
    """
    captions = {
        name: path.read_text(encoding="utf-8").strip()
        for name in pictures
        if (path := (folder / name).with_suffix(".txt")).is_file()
    }
    rows = [
        json.dumps({"file_name": name, "text": text}, ensure_ascii=False)
        for name, text in captions.items()
    ]
    card = dataset_card(repo_id, captions, captioned_by)
    files: dict[str, Path | bytes] = {name: folder / name for name in captions}
    files |= {"metadata.jsonl": ("\n".join(rows) + "\n").encode(), CARD: card.encode()}
    observer(Note(f"Pushing {wording.count(len(captions), 'picture')} to {repo_id} …"))
    pushed = push_dataset_files(
        files, repo_id, message="Upload captioned pictures with hublora", private=private
    )
    observer(Note(f"Verified {repo_id}@{pushed.commit[:8]}: every file is as pushed."))
    return pushed
