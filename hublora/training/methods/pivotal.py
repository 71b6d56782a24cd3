"""Token embeddings first, then the adapter too (pivotal tuning).

The embeddings approach the subject within the unchanged base; from that pivot the adapter has less
to change (for GANs https://huggingface.co/papers/2106.05744; for diffusion, cloneofsimo's
and diffusers' advanced DreamBooth scripts). Instance prompt and prior preservation are those of
DreamBooth.
"""

from __future__ import annotations

from hublora.data import DataConfig, Source
from hublora.training.config.training_config import TrainingConfig
from hublora.training.methods.dreambooth import DreamBooth
from hublora.training.methods.textual_inversion import TextualInversion


class Pivotal(TextualInversion):
    """Trains token embeddings, and from `tokens.first_steps` on an adapter too."""

    name = "pivotal"
    trains_adapter = True

    def data(self, config: TrainingConfig) -> DataConfig:
        if config.dreambooth.instance_prompt is not None:
            return DreamBooth().data(config)
        return super().data(config)

    def caption(self, config: TrainingConfig, source: Source) -> Source:
        return super().caption(config, DreamBooth().caption(config, source))

    def adapter_start_step(self, config: TrainingConfig, steps: int) -> int:
        first = config.tokens.first_steps
        return int(first) if first >= 1 else int(first * steps)
