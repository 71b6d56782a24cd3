"""The flags of `hublora train`: every one is a row of a table that names the setting it sets."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from hublora import strict_yaml
from hublora.cli.diffusers_flags import translate_flags
from hublora.errors import ConfigError
from hublora.flag_names import TRAINING_FLAGS
from hublora.refs import AdapterRef
from hublora.training.config.training_config import TrainingConfig, flatten, read_settings_file


class TrainCommand(click.Command):
    """Accepts flags with _ for -, and those of the diffusers scripts."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, translate_flags(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags by the section of the settings that they belong to."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section, dots, _ = (parameter.name or "").partition("__")
                known = TrainingConfig.model_fields
                title = section if dots else "run" if section in known else "other"
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title.capitalize()):
                formatter.write_dl(records)


def setting_flags(command: Any) -> Any:
    """Give a command all flags of the table."""
    for flag, key in reversed(TRAINING_FLAGS.items()):
        command = _option(flag, key)(command)
    return command


def _option(flag: str, key: str) -> Any:
    """Return the click option for a setting: type, help and default are the setting's own."""
    *sections, name = key.split(".")
    model: type[BaseModel] = TrainingConfig
    for section in sections:
        model = typing.cast("type[BaseModel]", model.model_fields[section].annotation)
    field = model.model_fields[name]
    kind = _value_type(field.annotation)
    text = (field.description or "").rstrip(".")
    shown = not field.is_required() and (
        field.default or (field.default == 0 and not isinstance(field.default, bool))
    )
    default = f"  [default: {field.default}]" if shown else ""
    settings: dict[str, Any] = {"help": text + "." + default, "default": None}
    parameter = key.replace(".", "__")  # click wants an identifier
    if kind is bool:
        return click.option(flag, parameter, is_flag=True, **settings)
    multiple = typing.get_origin(kind) is list
    if multiple:
        settings["help"] = f"{text}; may be repeated."
        kind = str
    elif typing.get_origin(kind) is typing.Literal:
        kind = click.Choice([str(choice) for choice in typing.get_args(kind)])
    elif kind is Path:
        kind = click.Path(path_type=Path)
    elif kind is AdapterRef:  # parsed with the settings
        kind, settings["metavar"] = str, "ADAPTER"
    return click.option(flag, parameter, type=kind, multiple=multiple, **settings)


def _value_type(annotation: Any) -> Any:
    """Return the type of a setting without its `| None` and its validators; text for several."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        kinds = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        # One or several: the setting parses the text itself.
        annotation = kinds[0] if len(kinds) == 1 else str
    if typing.get_origin(annotation) is typing.Annotated:
        return typing.get_args(annotation)[0]
    return annotation


def given_settings(
    config_file: Path | None, assignments: tuple[str, ...], flags: dict[str, Any]
) -> dict[str, Any]:
    """Return what was asked for under dotted keys: by file, then --set, then flags; the later wins.

    Raises:
        ConfigError: The file or an assignment does not parse.
    """
    settings = flatten(read_settings_file(config_file)) if config_file else {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment} is not of the form key=value.")
        try:
            settings[key] = strict_yaml.loads(value)
        except strict_yaml.YamlError as error:
            raise ConfigError(
                f"The value of --set {key} does not parse: {value!r}.", "Put it in quotes."
            ) from error
    for key, value in flags.items():
        if value is None or value is False or value == ():
            continue
        settings[key.replace("__", ".")] = list(value) if isinstance(value, tuple) else value
    return settings
