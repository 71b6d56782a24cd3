"""Shows results in notebooks: an image, and the result's fields as a table."""

from __future__ import annotations

import base64
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

from hublora.quoting import visible

MAX_BYTES = 8 << 20  # of an image that is put into the notebook


class NotebookResult:
    """A dataclass that a notebook shows as a table, under its image if it has one."""

    @property
    def shown_image(self) -> Path | None:
        """Path of the image that a notebook shows; None without one."""
        return None

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><th style='text-align:left'>{escape(field.name)}</th>"
            f"<td style='text-align:left'>{_cell(value)}</td></tr>"
            for field in fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
            if (value := getattr(self, field.name)) not in (None, (), {})
        ]
        return f"{_image(self.shown_image)}<table>{''.join(rows)}</table>"


def _image(path: Path | None) -> str:
    try:
        if path is None or path.suffix.lower() != ".png" or path.stat().st_size > MAX_BYTES:
            return ""
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return ""
    name = escape(visible(path.name), quote=True)
    return f'<img src="data:image/png;base64,{content}" alt="{name}" style="max-width:640px"><br>'


def _cell(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "<br>".join(map(_cell, value))
    if isinstance(value, dict):
        return "<br>".join(f"{_text(key)}: {_text(one)}" for key, one in value.items())
    return _text(getattr(value, "url", value))


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return escape(visible(text), quote=True)
