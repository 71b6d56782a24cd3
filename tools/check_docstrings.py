"""Lists attribute and argument lines of docstrings that say nothing about the value.

    python tools/check_docstrings.py            # hublora/
    python tools/check_docstrings.py hublora/data/crops.py

An entry such as "size: (h, w) in pixels." says what its name does not: a type, shape, unit or
range. "size: Of the image." and "size: What is cut." do not; "device: As for `load`." does, since
it names the place that says it. Exit status 1 if any is found.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_SECTION = re.compile(r"^(\s*)(Args|Attributes|Returns|Yields|Raises|Note|Example):\s*$")
_ENTRY = re.compile(r"^(\*{0,2}\w+): (\S.*)$")
_EMPTY = re.compile(
    r"(It|Its|The same|The other|Of|What|Whatever|That|Those|Them|Which|Where|Whose|Theirs?)\b"
    r"|As\b(?! (for |in )?`)"
    r"|(How|How many|How often|Told|Given|Called|Anything)\.$"
)


def entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each entry under `Args:` and `Attributes:`."""
    indent, section = -1, ""
    for line in docstring.splitlines():
        if found := _SECTION.match(line):
            indent, section = len(found[1]), found[2]
        elif line.strip() and len(line) - len(line.lstrip()) <= indent:
            section = ""
        elif section in ("Args", "Attributes") and len(line) - len(line.lstrip()) == indent + 4:
            entry = _ENTRY.match(line.strip())
            if entry:
                yield entry[1], entry[2]


def empty_entries(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of the docstring and "name: text" of each entry without content."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=True) or ""
            for name, text in entries(docstring):
                if _EMPTY.match(text):
                    yield getattr(node, "lineno", 1), f"{name}: {text}"


def main(arguments: list[str]) -> int:
    """Print every empty entry of the named files, of all of hublora/ by default."""
    paths = [Path(one) for one in arguments] or [ROOT / "hublora"]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) or [path])]
    found = 0
    for file in files:
        for line, entry in empty_entries(file.read_text(encoding="utf-8")):
            print(f"{file}:{line}: {entry}")
            found += 1
    if found:
        print(f"{found} docstring lines without a type, shape, unit or range.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
