"""Settings that cannot both be meant, named before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hublora.errors import ConfigError

if TYPE_CHECKING:
    from hublora.training.config import TrainingConfig

_PRODUCTS = ("loha", "lokr")

Rule = tuple[Callable[["TrainingConfig"], bool], str, str]

# When it applies, what contradicts what, and what to do.
RULES: tuple[Rule, ...] = (
    (
        lambda config: config.objective.debiased and config.objective.snr_gamma is not None,
        "objective.debiased and objective.snr_gamma both weight the loss.",
        "Leave one of them out.",
    ),
    (
        lambda config: config.adapter.init != "gaussian" and config.adapter.method != "lora",
        "adapter.init and adapter.method exclude each other: pissa and olora begin a plain LoRA.",
        "Leave one of them out.",
    ),
    (
        lambda config: config.adapter.init != "gaussian" and config.adapter.start_from is not None,
        "adapter.init and adapter.start_from both say where the adapter begins.",
        "Leave one of them out.",
    ),
    (
        lambda config: config.adapter.method in _PRODUCTS and config.adapter.start_from is not None,
        "adapter.start_from cannot be taken up by adapter.method loha or lokr.",
        "Leave adapter.method out.",
    ),
    (
        lambda config: (
            config.adapter.method in _PRODUCTS
            and (config.adapter.rank_stabilized or config.adapter.dropout > 0)
        ),
        "adapter.method loha and lokr know neither adapter.rank_stabilized nor adapter.dropout.",
        "Leave those out.",
    ),
    (
        lambda config: config.adapter.method in _PRODUCTS and config.optimizer.lora_plus_ratio != 1,
        "optimizer.lora_plus_ratio is of LoRA's two matrices, which adapter.method loha has not.",
        "Leave one of them out.",
    ),
    (
        lambda config: (
            config.optimizer.text_encoder_learning_rate is not None
            and not config.adapter.text_encoder
        ),
        "optimizer.text_encoder_learning_rate is given, and the text encoders are not trained.",
        "Add --train-text-encoder, or leave it out.",
    ),
    (
        lambda config: config.data.dataset is not None and config.data.folder is not None,
        "--dataset and --folder both say where the pictures are.",
        "Leave one of them out.",
    ),
    (
        lambda config: config.data.folder is not None and config.data.revision is not None,
        "--dataset-revision is of a dataset on the Hub; --folder is on this disk.",
        "Leave --dataset-revision out.",
    ),
)


def check_contradictions(config: TrainingConfig) -> None:
    """Check that no two settings exclude each other.

    Raises:
        ConfigError: The first two that do.
    """
    for applies, sentence, hint in RULES:
        if applies(config):
            raise ConfigError(sentence, hint)
