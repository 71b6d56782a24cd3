"""Commands, flags and settings that a page names are there: a reader may copy any of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from hublora.cli.main import hublora as group
from hublora.cli.settings_list import list_settings

ROOT = Path(__file__).parents[1]
GENERATED = ("cli.md", "python-api.md", "families.md")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name not in GENERATED]
# Flags of other programs that pages speak of; those of diffusers' scripts are tried elsewhere.
FOREIGN = {
    *("extra-index-url", "full", "multi_gpu", "num_processes", "config_file", "instance-data-dir"),
    *("enable_bucket", "bucket_reso_steps", "shuffle_caption", "keep_tokens", "random_crop"),
    *("caption_tag_dropout_rate", "caption_dropout_rate", "cache_latents", "flip_aug"),
    *("cond_image_column", "precondition_outputs"),
    *("cache_text_encoder_outputs", "masked_loss", "multires_noise_discount"),
}


def blocks(text: str) -> Iterator[str]:
    """Yield the command lines of a page's shell blocks, each on one line without its comment."""
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```$", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            yield from line.split("&&")


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for line in blocks(page.read_text(encoding="utf-8")):
            if match := re.search(r"(?:^|\s|\()hublora\s+(?=[a-z])(.*)", line.strip()):
                yield page.name, match[1]


def known_flags() -> set[str]:
    """Return the long flags of all commands, without dashes in front."""
    context, found = click.Context(group), {"help", "version"}
    todo = [group.get_command(context, name) for name in group.list_commands(context)]
    while todo:
        command = todo.pop()
        assert command is not None
        if isinstance(command, click.Group):
            todo += command.commands.values()
        for param in command.params:
            found |= {name.lstrip("-") for name in (*param.opts, *param.secondary_opts)}
    return found


@pytest.mark.parametrize(("page", "line"), list(dict.fromkeys(commands())))
def test_a_command_is_understood(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    parts = [word for word in words if word not in ("…", "...")]
    command = group.get_command(click.Context(group), parts[0])
    assert command is not None, page
    given, rest, _ = command.make_parser(click.Context(command)).parse_args(parts[1:])
    while isinstance(command, click.Group) and rest:
        command = command.get_command(click.Context(command), rest[0])
        assert command is not None, page
        given, rest, _ = command.make_parser(click.Context(command)).parse_args(rest[1:])
    for param in command.params:
        values = given.get(param.name)
        for value in values if isinstance(values, list) else [values]:
            if isinstance(param.type, click.Choice) and isinstance(value, str):
                assert value in param.type.choices, page
    for assignment in given.get("assignments", ()):
        assert assignment.partition("=")[0] in settings(), page


@cache
def settings() -> set[str]:
    """Return the dotted keys of a training's settings."""
    return {one.key for one in list_settings()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_flag_is_there(page: Path) -> None:
    named = set(re.findall(r"`[^`\n]*?--([a-z][a-z0-9_-]+)", page.read_text(encoding="utf-8")))
    assert named - known_flags() - FOREIGN == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_setting_is_there(page: Path) -> None:
    sections = {key.partition(".")[0] for key in settings() if "." in key}
    pattern = rf"`((?:{'|'.join(sorted(sections))})\.[a-z0-9_]+)"
    assert set(re.findall(pattern, page.read_text(encoding="utf-8"))) - settings() == set()
