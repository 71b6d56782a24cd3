"""Renders the templates that cards, pages and Spaces are made of.

Templates live in `templates/` at the top level of a checkout and in `hublora/templates/` of an
installed wheel; whichever exists is used.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from hublora.quoting import python_text, shell_word

_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE / "templates", _PACKAGE.parent / "templates")


def template_folder() -> Path:
    """Return the folder that holds the templates of this installation.

    Raises:
        FileNotFoundError: The installation lacks its templates.
    """
    for place in _PLACES:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"no templates beside {_PACKAGE}: reinstall hublora")


@cache
def environment() -> jinja2.Environment:
    """Return the one Jinja environment: unknown names are errors, HTML is escaped.

    The filters `shell` and `python` make a word of a command line and a literal of any text.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folder()),
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: bool(name) and ".html" in str(name),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"shell": shell_word, "python": python_text}
    return made


def render(template: str, /, **facts: Any) -> str:
    """Render `template` (a path below the template folder) with `facts`.

    Raises:
        jinja2.UndefinedError: The template names a fact that was not given.
    """
    return environment().get_template(template).render(**facts)
