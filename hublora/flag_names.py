"""Flags of the command line and what they are in Python, so that messages speak as their caller.

Messages of the library name flags. `in_python` turns those into keywords and settings where Python
called; the command line switches that off while it runs (`speaking_flags`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Flag -> setting. Frozen by tests/cli/test_train_flags.py: a new setting is reached with --set.
TRAINING_FLAGS: dict[str, str] = {
    "--preset": "preset",
    "--method": "method",
    "--base": "base.model",
    "--revision": "base.revision",
    "--components": "base.components",
    "--generation-base": "base.generation",
    "--quantize": "base.quantize",
    "--offload": "base.offload",
    "--dataset": "data.dataset",
    "--dataset-config": "data.config_name",
    "--dataset-revision": "data.revision",
    "--split": "data.split",
    "--streaming": "data.streaming",
    "--folder": "data.folder",
    "--archive": "data.archive",
    "--image-column": "data.image_column",
    "--caption-column": "data.caption_column",
    "--masks": "data.masks",
    "--repeats": "data.repeats",
    "--max-train-samples": "data.max_train_samples",
    "--resolution": "data.resolution",
    "--center-crop": "data.center_crop",
    "--aspect-buckets": "data.aspect_buckets",
    "--random-flip": "data.random_flip",
    "--caption-dropout": "data.caption_dropout",
    "--shuffle-tags": "data.shuffle_tags",
    "--keep-tags": "data.keep_tags",
    "--tag-dropout": "data.tag_dropout",
    "--num-workers": "data.num_workers",
    "--strict": "data.strict",
    "--rank": "adapter.rank",
    "--alpha": "adapter.alpha",
    "--target": "adapter.targets",
    "--train-text-encoder": "adapter.text_encoder",
    "--assistant": "adapter.assistant",
    "--trigger": "adapter.trigger_words",
    "--instance-prompt": "dreambooth.instance_prompt",
    "--with-prior-preservation": "dreambooth.prior_preservation",
    "--class-prompt": "dreambooth.class_prompt",
    "--class-data-dir": "dreambooth.class_folder",
    "--num-class-images": "dreambooth.num_class_images",
    "--prior-loss-weight": "dreambooth.prior_weight",
    "--placeholder-token": "tokens.placeholders",
    "--initializer-token": "tokens.initializers",
    "--num-vectors": "tokens.num_vectors",
    "--learnable-property": "tokens.property",
    "--train-batch-size": "train_batch_size",
    "--gradient-accumulation-steps": "gradient_accumulation_steps",
    "--gradient-checkpointing": "gradient_checkpointing",
    "--max-train-steps": "schedule.max_train_steps",
    "--num-train-epochs": "schedule.num_train_epochs",
    "--learning-rate": "optimizer.learning_rate",
    "--lr-scheduler": "schedule.name",
    "--lr-warmup-steps": "schedule.warmup_steps",
    "--optimizer": "optimizer.name",
    "--max-grad-norm": "optimizer.max_grad_norm",
    "--snr-gamma": "objective.snr_gamma",
    "--noise-offset": "objective.noise_offset",
    "--preserve": "objective.preserve",
    "--mixed-precision": "mixed_precision",
    "--seed": "seed",
    "--validation-prompt": "validation.prompts",
    "--negative-prompt": "validation.negative_prompt",
    "--num-validation-images": "validation.num_images",
    "--validation-steps": "validation.steps",
    "--validation-epochs": "validation.epochs",
    "--checkpointing-steps": "checkpoint.steps",
    "--checkpoints-total-limit": "checkpoint.total_limit",
    "--checkpoint-to-hub": "checkpoint.to_hub",
    "--output-dir": "output_dir",
    "--report-to": "report_to",
    "--push-to-hub": "hub.push",
    "--hub-model-id": "hub.model_id",
    "--private": "hub.private",
}
# Flags of other commands whose keyword has another name, and those that Python writes otherwise.
_KEYWORDS: Mapping[str, str] = {
    "--adapter": "adapters",
    "--base": "base",
    "--compose": "compose",
    "--guidance": "guidance_scale",
    "--merge": "method",
    "--no-gallery": "gallery=False",
    "--offload": "offload",
    "--private": "private",
    "--push-to-hub": "push_to",
    "--quantize": "quantize",
    "--resume": "resume",
    "--seed": "seed",
    "--weight": "weights",
}
# Flags whose value may be a word.
_VALUED = frozenset(
    (
        *("--caption-column", "--compose", "--dtype", "--image-column", "--lr-scheduler"),
        *("--merge", "--method", "--mixed-precision", "--offload", "--optimizer", "--quantize"),
        "--split",
    )
)
_NO_VALUES = frozenset(("and", "are", "cannot", "for", "go", "has", "in", "is", "may", "must"))
_NO_VALUES |= {"of", "only", "or", "out", "requires", "to", "with"}
# From here to the end of the line, a message has a command to type.
_COMMAND = re.compile(r"\b(?:hublora [a-z]|hf [a-z]|pip install|accelerate launch|python )")
_FLAG = re.compile(
    r"""(?<![\w-])--(?P<name>[a-z][a-z0-9-]*[a-z0-9])
        (?:[ =](?P<value>"[^"]*"|[A-Z]{3,}\b|[./<]\S*[^\s.,;)]|[\w-]+/[\w.-]*\w|\d[\w.]*\w|\d
        |[a-z][\w-]*\w))?""",
    re.VERBOSE,
)
_SET = re.compile(r"(?<![\w-])--set (?=[a-z_.]+=|KEY)")
_speaks_flags = False


@contextmanager
def speaking_flags() -> Iterator[None]:
    """Leave flags in messages as they are, until the block ends: the command line has called."""
    global _speaks_flags
    before, _speaks_flags = _speaks_flags, True
    try:
        yield
    finally:
        _speaks_flags = before


def in_python(text: str) -> str:
    """Return a message with keywords and settings for flags, unless the command line runs.

    Commands in it stay as they are typed.
    """
    if _speaks_flags or "--" not in text:
        return text
    return "\n".join(map(_line_in_python, text.split("\n")))


def _line_in_python(line: str) -> str:
    command = _COMMAND.search(line)
    end = command.start() if command else len(line)
    return _FLAG.sub(_keyword, _SET.sub("", line[:end])) + line[end:]


def _keyword(found: re.Match[str]) -> str:
    flag, value = f"--{found['name']}", found["value"]
    if flag == "--trigger" and value == "off":  # of `run`, not the words of a training
        return 'trigger="off"'
    name = _KEYWORDS.get(flag) or TRAINING_FLAGS.get(flag) or found["name"].replace("-", "_")
    if value is None or "=" in name:
        return name if value is None else f"{name} {value}"
    is_word = value[:1].islower() and "/" not in value
    if is_word and (flag not in _VALUED or value in _NO_VALUES):
        return f"{name} {value}"
    bare = value.startswith(('"', "<")) or value.isupper() or value.replace(".", "", 1).isdigit()
    return f"{name}={value}" if bare and not value.startswith("<") else f'{name}="{value}"'
