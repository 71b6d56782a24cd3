"""Every setting of a training, typed, in one tree; unknown keys are refused.

TrainingConfig
├── preset      what settings begin with: hublora.training.config.presets
├── method      how it is learned: hublora.training.methods
├── base        which pipeline, at which revision
├── data        hublora.data.config.DataConfig
├── adapter     rank, alpha, targets
├── dreambooth  one subject under one prompt, and images of its class
├── tokens      new words that are learned
├── optimizer   learning rate and how it is applied
├── schedule    how long, and the learning rate over time
├── objective   what the loss is
├── validation  images drawn on the way and for the gallery
├── holdout     images kept apart, on which it is measured when to stop
├── checkpoint  how often, how many
└── hub         where the result is pushed
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from hublora import strict_yaml
from hublora.data.config import DataConfig
from hublora.errors import ConfigError
from hublora.quoting import is_text
from hublora.refs import AdapterRef
from hublora.training.config.rules import check_contradictions
from hublora.training.config.sections import (
    AdapterSettings,
    BaseSettings,
    CheckpointSettings,
    DreamBoothSettings,
    HoldoutSettings,
    HubSettings,
    MethodName,
    ObjectiveSettings,
    OptimizerSettings,
    ScheduleSettings,
    Section,
    TokenSettings,
    ValidationSettings,
)

MAX_SETTINGS_BYTES = 1 << 20


class TrainingConfig(Section):
    """All settings of one training.

    Build one with keyword sections (`TrainingConfig(base={"model": …}, data={…})`), from a file
    with `TrainingConfig.from_file`, or from dotted keys with `TrainingConfig.from_settings`.
    """

    preset: Literal["face", "object", "style"] | None = Field(
        None, description="Begin with what suits a kind of subject; other settings go first."
    )
    method: MethodName = Field("text-to-image", description="How it is learned.")
    base: BaseSettings
    data: DataConfig = DataConfig()
    adapter: AdapterSettings = AdapterSettings()
    dreambooth: DreamBoothSettings = DreamBoothSettings()
    # Of sections with a setting of the same name, a misspelt key is taken for the first one's.
    optimizer: OptimizerSettings = OptimizerSettings()
    tokens: TokenSettings = TokenSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    validation: ValidationSettings = ValidationSettings()
    holdout: HoldoutSettings = HoldoutSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    hub: HubSettings = HubSettings()
    output_dir: Path | None = Field(
        None, description="Folder of the run; a new one below ./runs by default."
    )
    train_batch_size: int = Field(1, ge=1, description="Images per device and forward pass.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Passes per optimizer step.")
    gradient_checkpointing: bool = Field(False, description="Trade time for memory.")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = Field(
        None, description="Type of the frozen base; by default bf16 or fp16 on a GPU, no on a CPU."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything random.")
    report_to: list[str] = Field(default=[], description="Trackers, e.g. wandb, tensorboard.")

    @model_validator(mode="before")
    @classmethod
    def _schedule_free(cls, data: Any) -> Any:
        """Let the learning rate be constant for an optimizer that does without a schedule."""
        optimizer = data.get("optimizer") if isinstance(data, dict) else None
        if isinstance(optimizer, OptimizerSettings):
            optimizer = optimizer.model_dump()
        if not isinstance(optimizer, dict) or optimizer.get("name") != "schedule-free":
            return data
        schedule = data.get("schedule") or {}
        if isinstance(schedule, dict):
            return {**data, "schedule": {"name": "constant", **schedule}}
        return data

    @model_validator(mode="before")
    @classmethod
    def _rate_of_tokens(cls, data: Any) -> Any:
        """Let tokens that are learned alone begin at their usual rate, higher than an adapter's."""
        if not isinstance(data, dict) or data.get("method") != "textual-inversion":
            return data
        optimizer = data.get("optimizer") or {}
        if isinstance(optimizer, OptimizerSettings):
            optimizer = optimizer.model_dump(exclude_unset=True)
        if not isinstance(optimizer, dict) or optimizer.get("name") == "prodigy":
            return data
        return {**data, "optimizer": {"learning_rate": 5e-4, **optimizer}}

    @model_validator(mode="before")
    @classmethod
    def _begin_with_preset(cls, data: Any) -> Any:
        """Let the preset say what nothing else says."""
        from hublora.training.config.presets import PRESETS, beneath

        if not isinstance(data, dict) or data.get("preset") not in PRESETS:
            return data
        return beneath(data["preset"], data)

    @model_validator(mode="after")
    def _only_text(self) -> Self:
        """Refuse what no tokenizer and no file of settings could hold."""
        for key, value in flatten(self.model_dump()).items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str) and not is_text(one):
                    raise ConfigError(_not_text(key, one))
        return self

    @model_validator(mode="after")
    def _contradict_nothing(self) -> Self:
        check_contradictions(self)
        return self

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """Build from dotted keys, e.g. `{"base.model": "user/base", "seed": 1}`.

        Raises:
            ConfigError: A key is unknown or a value out of range; the nearest key is named.
        """
        tree: dict[str, Any] = {}
        for key, value in settings.items():
            *parents, last = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
                if not isinstance(node, dict):
                    raise ConfigError(
                        f"{parent} holds settings and has no value of its own.", f"Set {key}."
                    )
            if isinstance(value, Mapping) and isinstance(node.get(last), dict):
                node[last] |= value
            else:
                node[last] = dict(value) if isinstance(value, Mapping) else value
        return cls.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> TrainingConfig:
        """Build from nested mappings.

        Raises:
            ConfigError: As `from_settings`.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise _explain(error) from error

    @classmethod
    def from_file(cls, path: Path) -> TrainingConfig:
        """Build from a YAML or TOML file.

        Raises:
            ConfigError: The file does not parse or holds a wrong setting.
        """
        return cls.from_tree(read_settings_file(path))

    @property
    def run_folder(self) -> Path:
        """The folder of the run, once it is settled."""
        assert self.output_dir is not None, "the workflow settles the folder first"
        return self.output_dir

    def flat(self) -> dict[str, Any]:
        """Return every setting under its dotted key, as JSON has it."""
        return flatten(self.model_dump(mode="json"))

    def shareable(self) -> dict[str, Any]:
        """Return the settings that make the adapter again, without this machine's paths."""
        tree = self.model_dump(mode="json", exclude={"output_dir": True, "report_to": True})
        data = tree["data"]
        data.pop("cache_dir", None)
        for section in (data, tree["dreambooth"]):
            for key in ("folder", "class_folder"):
                if section.get(key):
                    section[key] = Path(section[key]).name
        if data.get("archive"):
            # A URL's query may hold a signature.
            url = data["archive"].partition("?")[0]
            data["archive"] = url if "://" in url else Path(url).name
        if start := tree["adapter"]["start_from"]:
            ref = AdapterRef.parse(start)
            public = Path(ref.location).name if ref.kind == "local" else ref.public
            weight = f":{ref.weight}" if ref.weight != 1 else ""
            tree["adapter"]["start_from"] = public + weight
        if Path(tree["base"]["model"]).expanduser().exists():
            tree["base"]["model"] = Path(tree["base"]["model"]).name
        return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + str(key)] = value
    return flat


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the nested settings in a YAML or TOML file, whoever wrote it.

    Raises:
        ConfigError: It cannot be read, is more than any settings, or does not hold a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SETTINGS_BYTES + 1)
        if len(content) > MAX_SETTINGS_BYTES:
            raise ValueError(f"it is larger than {MAX_SETTINGS_BYTES >> 10} KiB")
        text = content.decode("utf-8")
        tree = tomllib.loads(text) if path.suffix == ".toml" else strict_yaml.loads(text)
        if isinstance(tree, dict):
            flatten(tree)  # TOML has no limit of its own
    except RecursionError as error:
        raise ConfigError(f"The config file {path} is nested too deeply.") from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The config file {path} cannot be read: {reason}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"The config file {path} holds no settings.")
    return tree


def setting_names(model: type[BaseModel] = TrainingConfig, prefix: str = "") -> list[str]:
    """Return every dotted key that there is."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += setting_names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def _explain(error: ValidationError) -> ConfigError:
    problems = error.errors()
    # A key that is not known is often the one that is missed: it is told first.
    unknown = (one for one in problems if one["type"] == "extra_forbidden")
    first = next(unknown, problems[0])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):  # a contradiction says itself what to do
        return cause
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        names = setting_names()
        section, _, last = key.rpartition(".")
        near = (
            [name for name in names if _initials(name) == last and name.startswith(section)]
            or [name for name in names if name.split(".")[-1] == last]
            or difflib.get_close_matches(key, names, 1, 0.5)
        )
        hint = f"Did you mean {near[0]}?" if near else "hublora train --help lists the settings."
        return ConfigError(f"There is no setting {key!r}.", hint)
    if first["type"] == "string_unicode":
        return ConfigError(_not_text(key, first["input"]))
    if first["type"] == "missing":
        return ConfigError(f"The setting {key!r} is missing.", _MISSING.get(key))
    return ConfigError(f"The setting {key!r} cannot be {first['input']!r}: {first['msg']}.")


def _not_text(key: str, value: object) -> str:
    return f"The setting {key!r} is not valid UTF-8: {value!r}."


def _initials(name: str) -> str:
    """Return what people call a setting for short: "lr" for optimizer.learning_rate."""
    return "".join(word[0] for word in name.split(".")[-1].split("_"))


_MISSING = {
    "base": "Name the base with --base, e.g. --base stable-diffusion-v1-5/stable-diffusion-v1-5.",
    "base.model": "Name a diffusers pipeline: --base owner/name, or the setting base.model.",
}
