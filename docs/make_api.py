"""Writes docs/python-api.md from the public signatures and docstrings; `--check` only compares."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from generated_page import write_or_check

PAGE = Path(__file__).parent / "python-api.md"
HEAD = """# Python API

<!-- Made by `make docs` from signatures and docstrings: change those, not this page. -->

Everything below is imported from `hublora`; `import hublora` itself loads no torch. What the
command line does, Python does by the same name. Failures are subclasses of `hublora.HubloraError`.
"""
_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")


def signature(name: str, found: Any) -> str:
    """Return `name(…)` with types and defaults, one parameter a line where it is long."""
    parameters = [
        text
        for one in inspect.signature(found).parameters.values()
        if one.name not in ("self", "cls")
        for text in (
            _options(one) if str(one.annotation).startswith("Unpack[") else [_parameter(one)]
        )
    ]
    kinds = [one.kind for one in inspect.signature(found).parameters.values()]
    first_keyword = next(
        (index for index, kind in enumerate(kinds) if kind is inspect.Parameter.KEYWORD_ONLY), None
    )
    if first_keyword is not None and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(first_keyword, "*")
    returned = inspect.signature(found).return_annotation
    arrow = (
        "" if returned is inspect.Signature.empty or inspect.isclass(found) else f" -> {returned}"
    )
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) <= 96:
        return line
    body = "".join(f"    {one},\n" for one in parameters)
    return f"{name}(\n{body}){arrow}"


def _options(one: inspect.Parameter) -> list[str]:
    """Return the keywords of a parameter like `**options: Unpack[RunOptions]`, by name."""
    from hublora.generation import options

    kind = getattr(options, str(one.annotation).removeprefix("Unpack[").removesuffix("]"))
    types = kind.__annotations__
    return [f"{name}: {types[name].__forward_arg__} = …" for name in sorted(types)]


def _parameter(one: inspect.Parameter) -> str:
    star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    text = star.get(one.kind, "") + one.name
    if one.annotation is not inspect.Parameter.empty:
        text += f": {one.annotation}"
    if one.default is not inspect.Parameter.empty:
        shown = one.default.__name__ if callable(one.default) else repr(one.default)
        text += f" = {shown}" if ":" in text else f"={shown}"
    return text


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown; its sections become headings with lists."""
    lines = inspect.cleandoc(docstring).splitlines()
    written: list[str] = []
    section = ""
    for line in lines:
        if heading := _SECTION.fullmatch(line):
            section = heading[1]
            written += [f"**{section}**", ""]
        elif section and line.startswith("        "):
            written[-1] += f" {line.strip()}"
        elif section and line.startswith("    "):
            name, colon, rest = line.strip().partition(": ")
            plain = section in ("Returns", "Yields") or not colon
            written.append(line.strip() if plain else f"- `{name}`: {rest}")
        else:
            section = "" if line else section
            written.append(line)
    return "\n".join(written).strip()


def entries() -> dict[str, str]:
    """Return the page's sections by public name, in the order of `hublora.__all__`."""
    import hublora

    found = {}
    for name in hublora.__all__:
        value = getattr(hublora, name)
        if not callable(value):
            continue
        parts = [f"## {name}", ""]
        if inspect.isfunction(value) or dataclasses.is_dataclass(value):
            parts += ["```python", signature(name, value), "```", ""]
        parts.append(markdown(value.__doc__ or ""))
        if name == "TrainingConfig":
            parts += ["", settings_table(value)]
        found[name] = "\n".join(parts) + "\n"
    return found


def settings_table(config: Any, prefix: str = "") -> str:
    """Return every setting under its dotted key with its default and description."""
    rows = ["| setting | default | |", "|---|---|---|"] if not prefix else []
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and hasattr(kind, "model_fields"):
            rows.append(settings_table(kind, f"{prefix}{name}."))
            continue
        default = (
            "required"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True)!r}`"
        )
        default = "" if default in ("`None`", "`[]`", "`''`") else default
        text = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {default} | {text} |")
    return "\n".join(rows)


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *entries().values()])


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), "the code"))
