"""Token embeddings and nothing else (textual inversion, https://huggingface.co/papers/2208.01618).

The base stays frozen; new rows of the text encoders' embedding tables are trained. Images without
captions get neutral ones, as in the paper's appendix.
"""

from __future__ import annotations

from hublora.data import DataConfig, Source, with_captions
from hublora.data.examples import Example
from hublora.training.config.training_config import TrainingConfig
from hublora.training.methods.text_to_image import TextToImage

_UNCAPTIONED = "{}"  # replaced by the neutral captions

NEUTRAL = {
    "object": (
        *("a photo of {}", "a picture of {}", "an image of {}", "a rendering of {}"),
        *("a close-up photo of {}", "a cropped photo of {}", "a good photo of {}"),
        *("a photo of one {}", "a photo of the {}", "a bright photo of {}"),
    ),
    "style": (
        *("a painting in the style of {}", "a picture in the style of {}"),
        *("an image in the style of {}", "a drawing in the style of {}"),
        *("a rendering in the style of {}", "a close-up in the style of {}"),
        *("a bright painting in the style of {}", "a good painting in the style of {}"),
    ),
}


class TextualInversion(TextToImage):
    """Trains token embeddings on captions that contain the new tokens."""

    name = "textual-inversion"
    trains_adapter = False
    trains_tokens = True

    def data(self, config: TrainingConfig) -> DataConfig:
        if config.data.default_caption is not None:
            return config.data
        return config.data.model_copy(update={"default_caption": _UNCAPTIONED})

    def caption(self, config: TrainingConfig, source: Source) -> Source:
        """Put the placeholder tokens in front of every caption that contains none of them."""
        placeholders = config.tokens.placeholders
        together = " ".join(placeholders)
        neutral = tuple(text.format(together) for text in NEUTRAL[config.tokens.property])

        def caption(example: Example) -> tuple[str, ...]:
            if example.captions == (_UNCAPTIONED,):
                return neutral
            return tuple(
                text if any(word in text for word in placeholders) else f"{together}, {text}"
                for text in example.captions
            )

        return with_captions(source, caption)
