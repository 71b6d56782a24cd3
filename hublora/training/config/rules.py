"""Settings that exclude or require each other; over 300 lines because it is one table.

A rule's sentence names both settings, its hint what to change. Flags stand for settings that have
one (`hublora.cli.train_flags`).
"""

from __future__ import annotations

from collections.abc import Callable

from hublora.errors import ConfigError
from hublora.training.config.sections import TrainingSettings

Rule = tuple[Callable[[TrainingSettings], bool], str, str]

MIN_PRODIGY_FACTOR = 0.1
_LYCORIS = ("loha", "lokr")
_SUBJECT_METHODS = ("dreambooth", "pivotal")
_TOKEN_METHODS = ("textual-inversion", "pivotal")

# Settings of the adapter that apply to token embeddings too.
_WITHOUT_ADAPTER = {"ema_decay", "trigger_words"}


def _has_adapter_settings(config: TrainingSettings) -> bool:
    adapter = config.adapter
    return any(
        getattr(adapter, name) != field.get_default(call_default_factory=True)
        for name, field in type(adapter).model_fields.items()
        if name not in _WITHOUT_ADAPTER
    )


# When it applies, the sentence, the hint.
RULES: tuple[Rule, ...] = (
    # Quantised base
    (
        lambda c: c.base.quantize is not None and c.adapter.init != "gaussian",
        "adapter.init pissa and olora factor the base's own weights, which quantisation rounds.",
        "Leave --quantize or adapter.init out.",
    ),
    (
        lambda c: c.base.quantize is not None and c.adapter.method == "dora",
        "adapter.method dora learns the lengths of the base's own weights, which quantisation "
        "rounds.",
        "Leave --quantize out, or use adapter.method lora.",
    ),
    (
        lambda c: (
            c.base.offload is not None
            and (c.adapter.init != "gaussian" or c.adapter.method == "dora")
        ),
        "adapter.init pissa and olora and adapter.method dora read the base's own weights in every "
        "step, and with --offload they wait on the CPU.",
        "Leave --offload out, or use adapter.method lora without adapter.init.",
    ),
    # Adapter
    (
        lambda c: c.adapter.init != "gaussian" and c.adapter.method != "lora",
        "adapter.init pissa and olora require adapter.method lora.",
        "Leave adapter.init or adapter.method out.",
    ),
    (
        lambda c: c.adapter.init != "gaussian" and c.adapter.start_from is not None,
        "adapter.init and adapter.start_from both set the initial weights.",
        "Leave one of them out.",
    ),
    (
        lambda c: c.adapter.method in _LYCORIS and c.adapter.start_from is not None,
        "adapter.start_from requires adapter.method lora or dora, not loha or lokr.",
        "Leave adapter.method out.",
    ),
    (
        lambda c: (
            c.adapter.method in _LYCORIS and (c.adapter.rank_stabilized or c.adapter.dropout > 0)
        ),
        "adapter.rank_stabilized and adapter.dropout require adapter.method lora or dora, not "
        "loha or lokr.",
        "Leave them out.",
    ),
    (
        lambda c: c.adapter.method in _LYCORIS and c.optimizer.lora_plus_ratio != 1,
        "optimizer.lora_plus_ratio requires the two matrices of adapter.method lora or dora, not "
        "loha or lokr.",
        "Leave one of them out.",
    ),
    (
        lambda c: c.adapter.assistant is not None and c.adapter.method == "dora",
        "adapter.method dora scales the weights of the base, to which --assistant would add.",
        "Leave one of them out.",
    ),
    # Bases
    (
        lambda c: c.base.generation_revision is not None and c.base.generation is None,
        "base.generation_revision requires the generation base that it is of (--generation-base).",
        "Name it: --generation-base owner/name.",
    ),
    (
        lambda c: c.method in _TOKEN_METHODS and c.base.generation not in (None, c.base.model),
        "--method textual-inversion and pivotal learn tokens in the text encoders of --base, which "
        "--generation-base does not have.",
        "Leave --generation-base out.",
    ),
    # Loss, optimizer and schedule
    (
        lambda c: c.objective.debiased and c.objective.snr_gamma is not None,
        "objective.debiased and objective.snr_gamma both weight the loss.",
        "Leave one of them out.",
    ),
    (
        lambda c: c.optimizer.text_encoder_learning_rate is not None and not c.adapter.text_encoder,
        "optimizer.text_encoder_learning_rate requires trained text encoders "
        "(--train-text-encoder).",
        "Add --train-text-encoder, or leave it out.",
    ),
    (
        lambda c: (
            c.optimizer.name == "prodigy"
            and (
                c.optimizer.lora_plus_ratio != 1
                or c.optimizer.text_encoder_learning_rate is not None
            )
        ),
        "--optimizer prodigy has one learning rate for all weights; optimizer.lora_plus_ratio and "
        "optimizer.text_encoder_learning_rate set several.",
        "Leave them out.",
    ),
    (
        lambda c: c.optimizer.name == "prodigy" and c.optimizer.learning_rate < MIN_PRODIGY_FACTOR,
        "--learning-rate is a factor on the rate that --optimizer prodigy estimates; it must be at "
        f"least {MIN_PRODIGY_FACTOR}, and is usually 1.",
        "Leave --learning-rate out.",
    ),
    (
        lambda c: c.optimizer.beta3 is not None and c.optimizer.name != "prodigy",
        "optimizer.beta3 requires --optimizer prodigy.",
        "Add --optimizer prodigy, or leave it out.",
    ),
    (
        lambda c: c.optimizer.text_encoder_weight_decay is not None and not c.adapter.text_encoder,
        "optimizer.text_encoder_weight_decay requires trained text encoders "
        "(--train-text-encoder).",
        "Add --train-text-encoder, or leave it out.",
    ),
    (
        lambda c: c.schedule.num_cycles != 1 and c.schedule.name != "cosine_with_restarts",
        "schedule.num_cycles requires --lr-scheduler cosine_with_restarts.",
        "Add --lr-scheduler cosine_with_restarts, or leave it out.",
    ),
    (
        lambda c: c.schedule.power != 1 and c.schedule.name != "polynomial",
        "schedule.power requires --lr-scheduler polynomial.",
        "Add --lr-scheduler polynomial, or leave it out.",
    ),
    (
        lambda c: c.optimizer.name == "schedule-free" and c.schedule.name != "constant",
        "--optimizer schedule-free replaces --lr-scheduler, which must be constant.",
        "Leave --lr-scheduler out.",
    ),
    (
        lambda c: c.optimizer.name == "schedule-free" and c.adapter.ema_decay is not None,
        "--optimizer schedule-free and adapter.ema_decay both average the weights.",
        "Leave one of them out.",
    ),
    (
        lambda c: (
            c.schedule.name == "constant"
            and c.schedule.warmup_steps > 0
            and c.optimizer.name != "schedule-free"
        ),
        "--lr-scheduler constant has no warm-up, and --lr-warmup-steps is given.",
        "Use --lr-scheduler constant_with_warmup.",
    ),
    (
        lambda c: (c.schedule.name == "piecewise_constant") != (c.schedule.step_rules is not None),
        "--lr-scheduler piecewise_constant and schedule.step_rules require each other.",
        "Give both, e.g. --set schedule.step_rules=1:100,0.1.",
    ),
    (
        lambda c: (
            c.schedule.max_train_steps is not None
            and c.schedule.warmup_steps >= c.schedule.max_train_steps
        ),
        "--lr-warmup-steps must be less than --max-train-steps, or the learning rate never "
        "reaches its peak.",
        "Lower --lr-warmup-steps.",
    ),
    # Checkpoints and held-out images
    (
        lambda c: c.checkpoint.to_hub and not c.hub.push and c.hub.model_id is None,
        "--checkpoint-to-hub requires the repo that checkpoints are uploaded to.",
        "Name it: --hub-model-id owner/name. Or push the result too: --push-to-hub.",
    ),
    (
        lambda c: c.holdout.patience is not None and not c.holdout.images,
        "holdout.patience requires held-out images (holdout.images).",
        "Add e.g. --set holdout.images=0.1.",
    ),
    # Images and captions
    (
        lambda c: c.data.dataset == "",
        "--dataset must be the repo id of a dataset, got ''.",
        "Name one: --dataset owner/name, or --folder.",
    ),
    (
        lambda c: c.data.keep_tags > 0 and not (c.data.shuffle_tags or c.data.tag_dropout > 0),
        "--keep-tags requires tags that are shuffled or dropped (--shuffle-tags, --tag-dropout).",
        "Add --shuffle-tags or --tag-dropout.",
    ),
    (
        lambda c: (
            not c.data.aspect_buckets
            and (
                c.data.bucket_step is not None
                or (c.data.bucket_batch is not None and not c.data.has_several_shapes)
            )
        ),
        "data.bucket_step and data.bucket_batch require --aspect-buckets.",
        "Add --aspect-buckets.",
    ),
    (
        lambda c: not c.data.masks and c.data.mask_column is not None,
        "data.mask_column requires --masks.",
        "Add --masks.",
    ),
    (
        lambda c: not c.data.masks and c.objective.outside_mask > 0,
        "objective.outside_mask, the loss weight outside of masks, requires --masks.",
        "Add --masks.",
    ),
    (
        lambda c: c.data.dataset is not None and c.data.folder is not None,
        "--dataset and --folder both name the images.",
        "Leave one of them out.",
    ),
    (
        lambda c: (
            c.data.archive is not None and (c.data.dataset is not None or c.data.folder is not None)
        ),
        "--archive and --dataset or --folder both name the images.",
        "Leave one of them out.",
    ),
    (
        lambda c: c.data.streaming and c.data.dataset is None,
        "--streaming requires a dataset on the Hub (--dataset).",
        "Leave --streaming out, or name a dataset: --dataset owner/name.",
    ),
    (
        lambda c: c.data.streaming and c.data.max_train_samples is None,
        "--streaming requires the number of rows to read (--max-train-samples).",
        "Add e.g. --max-train-samples 10000.",
    ),
    (
        lambda c: c.data.streaming and "[" in c.data.split,
        "--streaming reads a split from its start, and --split names a part of one.",
        "Use --max-train-samples for fewer rows.",
    ),
    (
        lambda c: c.data.dataset is not None and c.data.folder_repeats is not None,
        "data.folder_repeats reads names of folders, and --dataset has none.",
        "Leave it out; --repeats repeats all images.",
    ),
    (
        lambda c: (
            c.data.dataset is None
            and (c.data.revision is not None or c.data.config_name is not None)
        ),
        "--dataset-revision and --dataset-config require --dataset; --folder and --archive have "
        "neither.",
        "Leave them out.",
    ),
    # DreamBooth
    (
        lambda c: c.method not in _SUBJECT_METHODS and c.dreambooth.instance_prompt is not None,
        "--instance-prompt requires --method dreambooth or pivotal.",
        "Add --method dreambooth.",
    ),
    (
        lambda c: c.method not in _SUBJECT_METHODS and c.dreambooth.prior_preservation,
        "--with-prior-preservation requires --method dreambooth or pivotal.",
        "Add --method dreambooth.",
    ),
    (
        lambda c: c.dreambooth.prior_preservation and c.dreambooth.class_prompt is None,
        "--with-prior-preservation requires the prompt of the class images (--class-prompt).",
        'Name the class: --class-prompt "a photo of a dog".',
    ),
    (
        lambda c: (
            not c.dreambooth.prior_preservation
            and (c.dreambooth.class_prompt is not None or c.dreambooth.class_folder is not None)
        ),
        "--class-prompt and --class-data-dir require --with-prior-preservation.",
        "Add --with-prior-preservation, or leave them out.",
    ),
    (
        lambda c: (
            c.dreambooth.instance_prompt is not None
            and c.dreambooth.instance_prompt == c.dreambooth.class_prompt
        ),
        "--instance-prompt and --class-prompt must differ, or the subject is learned as the whole "
        "class.",
        'Put a rare word into the first: "a photo of sks dog".',
    ),
    (
        lambda c: (
            c.dreambooth.class_folder is not None and c.dreambooth.class_folder == c.data.folder
        ),
        "--class-data-dir and --folder must be different folders.",
        "Name another one, or leave --class-data-dir out: the base generates the class images.",
    ),
    (
        lambda c: (
            c.method == "dreambooth"
            and c.dreambooth.instance_prompt is None
            and c.data.caption_column is None
        ),
        "--method dreambooth requires the caption of all images (--instance-prompt).",
        'Add e.g. --instance-prompt "a photo of sks dog". Or name captions: --caption-column text.',
    ),
    # Preservation without class images
    (
        lambda c: c.objective.preserve and c.method == "textual-inversion",
        "--preserve keeps an adapter from changing the base, and --method textual-inversion trains "
        "none.",
        "Leave --preserve out.",
    ),
    (
        lambda c: (
            c.objective.preserve
            and not c.adapter.trigger_words
            and c.objective.preserve_class is None
        ),
        "--preserve requires trigger words (--trigger), without which it cannot tell what is new "
        "from what is to stay.",
        'Add --trigger "sks dog", or name what is to stay: --set objective.preserve_class=dog.',
    ),
    (
        lambda c: (
            not c.objective.preserve
            and (c.objective.preserve_class is not None or c.objective.preserve_weight != 1)
        ),
        "objective.preserve_class and objective.preserve_weight require --preserve.",
        "Add --preserve, or leave them out.",
    ),
    # Token embeddings
    (
        lambda c: c.method not in _TOKEN_METHODS and bool(c.tokens.placeholders),
        "--placeholder-token requires --method textual-inversion or pivotal.",
        "Add --method pivotal.",
    ),
    (
        lambda c: c.method in _TOKEN_METHODS and not c.tokens.placeholders,
        "--method textual-inversion and pivotal require the token to learn (--placeholder-token).",
        "Add e.g. --placeholder-token '<my-dog>'.",
    ),
    (
        lambda c: any(word.split() != [word] for word in c.tokens.placeholders),
        "--placeholder-token must be one word without spaces.",
        "Write it as one: '<my-thing>'",
    ),
    (
        lambda c: any(not word.strip() for word in c.tokens.initializers),
        "--initializer-token is empty.",
        "Name a word that the base knows, or leave it out: --initializer-token dog",
    ),
    (
        lambda c: len(set(c.tokens.placeholders)) < len(c.tokens.placeholders),
        "--placeholder-token is given twice with the same token.",
        "For several vectors per token, use --num-vectors.",
    ),
    (
        lambda c: len(c.tokens.initializers) not in (0, 1, len(c.tokens.placeholders)),
        "--initializer-token must be given once, or once for each --placeholder-token.",
        "Give one for all, or one each in the same order.",
    ),
    (
        lambda c: c.method == "textual-inversion" and c.tokens.learning_rate is not None,
        "tokens.learning_rate and --learning-rate are the same with --method textual-inversion.",
        "Use --learning-rate.",
    ),
    (
        lambda c: c.method == "textual-inversion" and _has_adapter_settings(c),
        "--method textual-inversion trains token embeddings and no adapter, and settings of the "
        "adapter are given.",
        "Use --method pivotal, or leave out --rank, --target and the like.",
    ),
    (
        lambda c: (
            c.method == "pivotal"
            and c.optimizer.name == "prodigy"
            and c.tokens.learning_rate is not None
        ),
        "--optimizer prodigy has one learning rate for all weights; tokens.learning_rate sets a "
        "second one.",
        "Leave tokens.learning_rate out.",
    ),
    (
        lambda c: (
            c.method == "pivotal"
            and c.schedule.max_train_steps is not None
            and c.tokens.first_steps >= c.schedule.max_train_steps
        ),
        "tokens.first_steps must be less than --max-train-steps, or the adapter is never trained.",
        "Take fewer, or a share below 1.",
    ),
)


def check_contradictions(config: TrainingSettings) -> None:
    """Check the settings against every rule.

    Raises:
        ConfigError: The first rule that applies.
    """
    for applies, sentence, hint in RULES:
        if applies(config):
            raise ConfigError(sentence, hint)
