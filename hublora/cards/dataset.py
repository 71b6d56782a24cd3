"""The card of a dataset of captioned images: https://huggingface.co/docs/hub/datasets-cards."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from hublora.cards.markdown import code, fence, inline, repo_link
from hublora.rendering import render

_EXAMPLES = 5
# Upper ends of the Hub's size categories.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


def dataset_card(repo_id: str, captions: Mapping[str, str], captioned_by: str | None) -> str:
    """Return README.md of a dataset repo.

    Args:
        repo_id: owner/name.
        captions: File name of an image -> caption.
        captioned_by: Repo id of the captioning model; None if people wrote the captions.
    """
    metadata = {
        "task_categories": ["text-to-image"],
        "tags": ["imagefolder", "hublora"],
        "size_categories": [_size(len(captions))],
    }
    examples = list(captions.items())[:_EXAMPLES]
    body = render(
        "cards/dataset.md.jinja",
        title=inline(repo_id.split("/")[-1]),
        count=len(captions),
        captioned_by=repo_link(captioned_by) if captioned_by else None,
        examples=[(code(name), inline(text)) for name, text in examples],
        repo_id=repo_id,
        fence=fence(repo_id),
    )
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n{body}"


def _size(count: int) -> str:
    return next((name for end, name in _SIZES if count < end), "n>1M")
