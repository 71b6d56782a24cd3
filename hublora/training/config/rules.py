"""Settings that cannot both be meant, named before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hublora.errors import ConfigError

if TYPE_CHECKING:
    from hublora.training.config.training_config import TrainingConfig

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
        lambda config: (
            config.optimizer.name == "prodigy"
            and (
                config.optimizer.lora_plus_ratio != 1
                or config.optimizer.text_encoder_learning_rate is not None
            )
        ),
        "The optimizer prodigy has one learning rate for all weights.",
        "Leave optimizer.lora_plus_ratio and optimizer.text_encoder_learning_rate out.",
    ),
    (
        lambda config: (
            config.optimizer.name == "schedule-free" and config.schedule.name != "constant"
        ),
        "The optimizer schedule-free and --lr-scheduler both lower the learning rate.",
        "Leave --lr-scheduler out.",
    ),
    (
        lambda config: (
            config.optimizer.name == "schedule-free" and config.adapter.ema_decay is not None
        ),
        "The optimizer schedule-free and adapter.ema_decay both average the weights.",
        "Leave one of them out.",
    ),
    (
        lambda config: (
            config.schedule.name == "constant"
            and config.schedule.warmup_steps > 0
            and config.optimizer.name != "schedule-free"
        ),
        "--lr-scheduler constant knows no --lr-warmup-steps.",
        "Use --lr-scheduler constant_with_warmup.",
    ),
    (
        lambda config: (
            (config.schedule.name == "piecewise_constant")
            != (config.schedule.step_rules is not None)
        ),
        "--lr-scheduler piecewise_constant and schedule.step_rules belong together.",
        "Give both, e.g. --set schedule.step_rules=1:100,0.1.",
    ),
    (
        lambda config: (
            config.checkpoint.to_hub and not config.hub.push and config.hub.model_id is None
        ),
        "--checkpoint-to-hub keeps checkpoints in a repo on the Hub, and none is named.",
        "Name it: --hub-model-id owner/name. Or push the result too: --push-to-hub.",
    ),
    (
        lambda config: config.holdout.patience is not None and not config.holdout.images,
        "holdout.patience is about measures on held-out images, and none are held out.",
        "Add e.g. --set holdout.images=0.1.",
    ),
    (
        lambda config: (
            config.schedule.max_train_steps is not None
            and config.schedule.warmup_steps >= config.schedule.max_train_steps
        ),
        "--lr-warmup-steps is not less than --max-train-steps: the peak is never reached.",
        "Warm up for fewer steps.",
    ),
    (
        lambda config: (
            config.data.keep_tags > 0
            and not (config.data.shuffle_tags or config.data.tag_dropout > 0)
        ),
        "--keep-tags is about tags that are moved or left out, and none are.",
        "Add --shuffle-tags or --tag-dropout.",
    ),
    (
        lambda config: (
            not config.data.aspect_buckets
            and (config.data.bucket_step is not None or config.data.bucket_batch is not None)
        ),
        "data.bucket_step and data.bucket_batch are of buckets, and --aspect-buckets is not given.",
        "Add --aspect-buckets.",
    ),
    (
        lambda config: not config.data.masks and config.data.mask_column is not None,
        "data.mask_column names masks, and --masks is not given.",
        "Add --masks.",
    ),
    (
        lambda config: not config.data.masks and config.objective.outside_mask > 0,
        "objective.outside_mask is the weight outside of masks, and --masks is not given.",
        "Add --masks.",
    ),
    (
        lambda config: config.data.dataset is not None and config.data.folder is not None,
        "--dataset and --folder both say where the images are.",
        "Leave one of them out.",
    ),
    (
        lambda config: (
            config.data.archive is not None
            and (config.data.dataset is not None or config.data.folder is not None)
        ),
        "--archive says where the images are, and --dataset or --folder says so too.",
        "Leave one of them out.",
    ),
    (
        lambda config: config.data.streaming and config.data.dataset is None,
        "--streaming reads a dataset on the Hub, and no --dataset is named.",
        "Leave --streaming out, or name a dataset: --dataset owner/name.",
    ),
    (
        lambda config: config.data.streaming and config.data.max_train_samples is None,
        "--streaming reads as many rows as --max-train-samples says, which is not given.",
        "Add e.g. --max-train-samples 10000.",
    ),
    (
        lambda config: config.data.streaming and "[" in config.data.split,
        "--streaming reads from the start of a split, not a part of it as --split says.",
        "Use --max-train-samples for fewer rows.",
    ),
    (
        lambda config: config.data.dataset is not None and config.data.folder_repeats is not None,
        "data.folder_repeats is about names of folders; --dataset is on the Hub.",
        "Leave it out; --repeats repeats all images.",
    ),
    (
        lambda config: (
            config.data.dataset is None
            and (config.data.revision is not None or config.data.config_name is not None)
        ),
        "--dataset-revision and --dataset-config are of a dataset on the Hub; --folder and "
        "--archive are none.",
        "Leave them out.",
    ),
)


def check_contradictions(config: TrainingConfig) -> None:
    """Check that no two settings exclude each other.

    Raises:
        ConfigError: The first two that do.
    """
    for applies, sentence, hint in (*RULES, *METHOD_RULES):
        if applies(config):
            raise ConfigError(sentence, hint)


if TYPE_CHECKING:
    from hublora.training.config.training_config import TrainingConfig


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
        "--with-prior-preservation shows images of a class, and --class-prompt is not given.",
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
        "--class-prompt and --class-data-dir are of images that only --with-prior-preservation "
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
        "--method dreambooth shows every image under one prompt, and --instance-prompt does not "
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
