"""Settings that cannot both be meant, named before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hublora.errors import ConfigError

if TYPE_CHECKING:
    from hublora.training.config import TrainingConfig

Rule = tuple[Callable[["TrainingConfig"], bool], str, str]

# When it applies, what contradicts what, and what to do.
RULES: tuple[Rule, ...] = (
    (
        lambda config: config.objective.debiased and config.objective.snr_gamma is not None,
        "objective.debiased and objective.snr_gamma both weight the loss.",
        "Leave one of them out.",
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
