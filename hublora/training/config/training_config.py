"""Every setting of a training, typed, in one tree; unknown keys are refused.

TrainingConfig
├── preset      name in hublora.training.config.presets
├── method      name in hublora.training.methods
├── base        diffusers pipeline and its revision
├── data        hublora.data.config.DataConfig
├── adapter     rank, alpha, targeted layers
├── dreambooth  instance prompt, class prompt, prior preservation
├── tokens      token embeddings that are trained
├── optimizer   learning rate, betas, weight decay
├── schedule    steps or epochs, learning rate over time
├── objective   loss weighting, noise
├── validation  prompts and images of previews and gallery
├── holdout     held-out images and early stopping
├── checkpoint  interval, limit, upload
└── hub         repo that the result is pushed to

Its way: `_resolve` fills in preset and dependent defaults (`resolve`), the fields check types and
ranges (`sections`), `_check_rules` refuses contradictions (`rules`); afterwards it is only read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import to_jsonable_python

from hublora import strict_yaml
from hublora.errors import ConfigError
from hublora.quoting import is_text
from hublora.refs import public_url
from hublora.training.config.resolve import resolve_defaults
from hublora.training.config.rules import check_contradictions
from hublora.training.config.sections import TrainingSettings
from hublora.training.config.setting_errors import explain, not_text

MAX_SETTINGS_BYTES = 1 << 20


class TrainingConfig(TrainingSettings):
    """All settings of one training, defaults included; it is not changed after it was made.

    Build one with keyword sections (`TrainingConfig(base={"model": …}, data={…})`), from a file
    with `TrainingConfig.from_file`, or from dotted keys with `TrainingConfig.from_settings`.
    """

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        return resolve_defaults(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _only_text(self) -> Self:
        """Refuse strings that are not valid UTF-8, which no tokenizer or file could hold."""
        for key, value in flatten(self.model_dump()).items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str) and not is_text(one):
                    raise ConfigError(not_text(key, one))
        return self

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        check_contradictions(self)
        return self

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """Build from dotted keys, e.g. `{"base.model": "user/base", "seed": 1}`.

        Raises:
            ConfigError: A key is unknown (the nearest one is named), a value is out of range, or
                two settings exclude each other.
            RefError: A repo id, base or adapter ref does not parse.
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
            HubloraError: As `from_settings`.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise explain(error, setting_names()) from error

    @classmethod
    def from_file(cls, path: Path) -> TrainingConfig:
        """Build from a YAML or TOML file.

        Raises:
            HubloraError: The file does not parse, or as `from_settings`.
        """
        return cls.from_tree(read_settings_file(path))

    def updated(self, settings: Mapping[str, Any]) -> Self:
        """Return a copy with other values under dotted keys; what follows them stays as it is."""
        sections: dict[str, dict[str, Any]] = {}
        fields: dict[str, Any] = {}
        for key, value in settings.items():
            section, dot, name = key.partition(".")
            if dot:
                sections.setdefault(section, {})[name] = value
            else:
                fields[key] = value
        for section, values in sections.items():
            fields[section] = getattr(self, section).model_copy(update=values)
        return self.model_copy(update=fields)

    @property
    def run_folder(self) -> Path:
        """Folder of the run; the workflow has chosen it before anything reads it."""
        assert self.output_dir is not None, "workflows.train.destination chooses the folder first"
        return self.output_dir

    @property
    def token_embedding_lr(self) -> float:
        """Peak learning rate of the token embeddings: their own, else the optimizer's."""
        return self.tokens.learning_rate or self.optimizer.learning_rate

    def flat(self) -> dict[str, Any]:
        """Return every setting under its dotted key, as JSON has it."""
        return flatten(self.model_dump(mode="json"))

    def differing(self) -> dict[str, Any]:
        """Return the settings, of those that may be shared, which differ from their defaults."""
        defaults = default_settings()
        return {
            key: value
            for key, value in flatten(self.shareable()).items()
            if value != defaults.get(key, value)
        }

    def shareable(self) -> dict[str, Any]:
        """Return the settings that train the adapter again, as JSON has them, without the paths of
        this machine."""
        tree = self.model_dump(mode="json", exclude={"output_dir": True, "report_to": True})
        data = tree["data"]
        data.pop("cache_dir", None)
        for section in (data, tree["dreambooth"]):
            for key in ("folder", "class_folder"):
                if section.get(key):
                    section[key] = Path(section[key]).name
        if data.get("archive"):
            archive = data["archive"]
            data["archive"] = public_url(archive) if "://" in archive else Path(archive).name
        for key in ("start_from", "assistant"):
            if (ref := getattr(self.adapter, key)) is not None:
                public = Path(ref.location).name if ref.kind == "local" else ref.public
                weight = f":{ref.weight}" if ref.weight != 1 else ""
                tree["adapter"][key] = public + weight
        for key in ("model", "components", "generation"):
            named = tree["base"][key]
            if named and Path(named).expanduser().exists():
                tree["base"][key] = Path(named).name
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


def default_settings(model: type[BaseModel] = TrainingConfig, prefix: str = "") -> dict[str, Any]:
    """Return every setting's default under its dotted key, as JSON has it; None without one."""
    defaults: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            defaults |= default_settings(kind, f"{prefix}{name}.")
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            defaults[prefix + name] = to_jsonable_python(default)
    return defaults


def setting_names(model: type[BaseModel] = TrainingConfig, prefix: str = "") -> list[str]:
    """Return the dotted key of every setting."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += setting_names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names
