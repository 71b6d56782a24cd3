"""One subject from a few images (DreamBooth, https://huggingface.co/papers/2208.12242).

Every image has the same caption, with a rare word in it. Prior preservation (section 3.2) trains on
class images besides, which the base itself generated: `Session.streams`.
"""

from __future__ import annotations

from dataclasses import replace

from hublora.data import DataConfig, Source, with_captions
from hublora.training.config.training_config import TrainingConfig
from hublora.training.methods.text_to_image import TextToImage


class DreamBooth(TextToImage):
    """Trains an adapter on images that all have the instance prompt as caption."""

    name = "dreambooth"

    def data(self, config: TrainingConfig) -> DataConfig:
        prompt = config.dreambooth.instance_prompt
        if prompt is None:
            return config.data
        return config.data.model_copy(update={"default_caption": prompt})

    def caption(self, config: TrainingConfig, source: Source) -> Source:
        """Replace captions by the instance prompt, unless a caption column was named."""
        prompt = config.dreambooth.instance_prompt
        if prompt is None or config.data.caption_column is not None:
            return source
        captioned = with_captions(source, lambda example: (prompt,))
        return replace(captioned, captions_from=None)
