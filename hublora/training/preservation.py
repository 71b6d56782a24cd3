"""Preserves what the base model knows without class images: its own prediction is the target.

On the noisy latents of every sample the adapter is trained besides to predict what the base model
alone predicts for the caption without its trigger words (ai-toolkit calls it differential output
preservation). What the trigger does not name stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hublora.training.config.training_config import TrainingConfig

_SPACE = re.compile(r"\s+")


def preserved_caption(caption: str, triggers: Sequence[str], class_word: str) -> str:
    """Return the caption with `class_word` in place of every trigger word, whatever its case.

    A caption without a trigger word is learned as it is, so `class_word` alone is preserved there.

    Args:
        caption: Caption that is trained on.
        triggers: Trigger words, each of one or more words.
        class_word: Name of the class that the trigger words are of, such as "dog"; may be empty.
    """
    longest_first = sorted(triggers, key=len, reverse=True)
    named = "|".join(re.escape(trigger) for trigger in longest_first if trigger)
    if not named:
        return class_word
    pattern = re.compile(rf"(?<!\w)(?:{named})(?!\w)", re.IGNORECASE)
    replaced, count = pattern.subn(lambda _: class_word, caption)
    if not count:
        return class_word
    parts = (_SPACE.sub(" ", part).strip() for part in replaced.split(","))
    return ", ".join(filter(None, parts))


def rewording(config: TrainingConfig) -> Callable[[str], str] | None:
    """Return the function from a caption to the one that is preserved; None without
    `objective.preserve`."""
    if not config.objective.preserve:
        return None
    triggers, class_word = config.adapter.trigger_words, config.objective.preserve_class or ""
    return lambda caption: preserved_caption(caption, triggers, class_word)


def preservation_note(config: TrainingConfig, captions: Sequence[str]) -> str | None:
    """Return the sentence that says what is preserved and what it costs; None if nothing is.

    Args:
        config: Settings of the training.
        captions: All captions of the training images.
    """
    reword = rewording(config)
    if reword is None:
        return None
    texts = list(dict.fromkeys(map(reword, captions)))
    more = f" and {len(texts) - 1:,} more" if len(texts) > 1 else ""
    return (
        f"The base's own prediction is preserved for {texts[0]!r}{more}, at weight "
        f"{config.objective.preserve_weight:g}; a batch takes one more pass of the denoiser with "
        "gradients and one without"
    )
