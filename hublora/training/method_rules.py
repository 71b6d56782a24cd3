"""Settings of the methods that cannot be meant together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hublora.training.config import TrainingConfig

Rule = tuple[Callable[["TrainingConfig"], bool], str, str]

_ONE_SUBJECT = ("dreambooth", "pivotal")
_NEW_WORDS = ("textual-inversion", "pivotal")

# What of the adapter's settings is of use where there is no adapter.
_WITHOUT_ADAPTER = {"ema_decay", "trigger_words"}


def _has_adapter_settings(config: TrainingConfig) -> bool:
    adapter = config.adapter
    return any(
        getattr(adapter, name) != field.get_default(call_default_factory=True)
        for name, field in type(adapter).model_fields.items()
        if name not in _WITHOUT_ADAPTER
    )


# When it applies, what contradicts what, and what to do.
METHOD_RULES: tuple[Rule, ...] = (
    (
        lambda config: (
            config.method not in _ONE_SUBJECT and config.dreambooth.instance_prompt is not None
        ),
        "--instance-prompt is of --method dreambooth or pivotal, which is not given.",
        "Add --method dreambooth.",
    ),
    (
        lambda config: config.method not in _ONE_SUBJECT and config.dreambooth.prior_preservation,
        "--with-prior-preservation is of --method dreambooth or pivotal, which is not given.",
        "Add --method dreambooth.",
    ),
    (
        lambda config: (
            config.dreambooth.prior_preservation and config.dreambooth.class_prompt is None
        ),
        "--with-prior-preservation shows pictures of a class, and --class-prompt is not given.",
        'Name the class: --class-prompt "a photo of a dog".',
    ),
    (
        lambda config: (
            not config.dreambooth.prior_preservation
            and (
                config.dreambooth.class_prompt is not None
                or config.dreambooth.class_folder is not None
            )
        ),
        "--class-prompt and --class-data-dir are of pictures that only --with-prior-preservation "
        "shows.",
        "Add --with-prior-preservation, or leave them out.",
    ),
    (
        lambda config: (
            config.dreambooth.instance_prompt is not None
            and config.dreambooth.instance_prompt == config.dreambooth.class_prompt
        ),
        "--instance-prompt and --class-prompt are the same: the subject could not be told from its "
        "class.",
        'Put a rare word into the first: "a photo of sks dog".',
    ),
    (
        lambda config: (
            config.dreambooth.class_folder is not None
            and config.dreambooth.class_folder == config.data.folder
        ),
        "--class-data-dir and --folder are the same folder.",
        "Name another one, or leave --class-data-dir out: the class is drawn by the base.",
    ),
    (
        lambda config: (
            config.method == "dreambooth"
            and config.dreambooth.instance_prompt is None
            and config.data.caption_column is None
        ),
        "--method dreambooth shows every picture under one prompt, and --instance-prompt does not "
        "say which.",
        'Add e.g. --instance-prompt "a photo of sks dog". Or name captions: --caption-column text.',
    ),
    (
        lambda config: config.method not in _NEW_WORDS and bool(config.tokens.placeholders),
        "--placeholder-token is of --method textual-inversion or pivotal, which is not given.",
        "Add --method pivotal.",
    ),
    (
        lambda config: config.method in _NEW_WORDS and not config.tokens.placeholders,
        "--method textual-inversion and pivotal learn a new word, and --placeholder-token does not "
        "name one.",
        "Add e.g. --placeholder-token '<my-dog>'.",
    ),
    (
        lambda config: any(word.split() != [word] for word in config.tokens.placeholders),
        "--placeholder-token is not one word.",
        "Write it as one: '<my-thing>'",
    ),
    (
        lambda config: any(not word.strip() for word in config.tokens.initializers),
        "--initializer-token is empty.",
        "Name a word that the base knows, or leave it out: --initializer-token dog",
    ),
    (
        lambda config: len(set(config.tokens.placeholders)) < len(config.tokens.placeholders),
        "--placeholder-token names one word twice.",
        "For several vectors a word, use --num-vectors.",
    ),
    (
        lambda config: (
            len(config.tokens.initializers) not in (0, 1, len(config.tokens.placeholders))
        ),
        "--initializer-token is given neither once nor once for each --placeholder-token.",
        "Give one for all, or one each in the same order.",
    ),
    (
        lambda config: (
            config.method == "textual-inversion" and config.tokens.learning_rate is not None
        ),
        "tokens.learning_rate and --learning-rate are the same where only words are learned.",
        "Use --learning-rate.",
    ),
    (
        lambda config: config.method == "textual-inversion" and _has_adapter_settings(config),
        "--method textual-inversion learns words and no adapter, and settings of the adapter are "
        "given.",
        "Use --method pivotal, or leave out --rank, --target and the like.",
    ),
    (
        lambda config: (
            config.method == "pivotal"
            and config.optimizer.name == "prodigy"
            and config.tokens.learning_rate is not None
        ),
        "The optimizer prodigy has one learning rate for all weights.",
        "Leave tokens.learning_rate out.",
    ),
    (
        lambda config: (
            config.method == "pivotal"
            and config.schedule.max_train_steps is not None
            and config.tokens.first_steps >= config.schedule.max_train_steps
        ),
        "tokens.first_steps is not less than --max-train-steps: the adapter would never learn.",
        "Take fewer, or a share below 1.",
    ),
)
