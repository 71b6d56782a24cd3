"""Names are unique, and what is long says why."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hublora"
MAX_FILE = 300
MAX_FUNCTION = 60  # lines besides the docstring
REASON = " lines because "


def parsed() -> Iterator[tuple[str, ast.Module, int]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(text), text.count("\n")


def words(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the docstring on one line."""
    return " ".join((ast.get_docstring(node) or "").split())


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without those of its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        first = function.body[0]
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def unexplained(tree: ast.Module, lines: int) -> list[str]:
    """Return the long functions of a file, and "" for the file, whose docstring has no reason."""
    found = []
    if lines > MAX_FILE and REASON not in words(tree):
        found.append("")
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and code_lines(node) > MAX_FUNCTION
            and REASON not in words(node)
        ):
            found.append(node.name)
    return found


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree, _ in parsed():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_long_files_and_functions_say_why() -> None:
    found = {name: names for name, tree, n in parsed() if (names := unexplained(tree, n))}
    assert found == {}, f"split them, or write 'Over {MAX_FILE}{REASON}…' into the docstring"


@pytest.mark.parametrize(
    ("docstring", "found"), [("Do it.", ["f"]), (f"Do it. Over 60{REASON}x.", [])]
)
def test_a_long_function_is_found_by_its_code_alone(docstring: str, found: list[str]) -> None:
    body = "\n".join(["    x = 1"] * MAX_FUNCTION)
    assert unexplained(ast.parse(f'def f():\n    """{docstring}"""\n{body}\n'), 100) == found
    short = f'def f():\n    """Do it.{chr(10) * 99}"""\n    return 1\n'
    assert unexplained(ast.parse(short), 100) == []
