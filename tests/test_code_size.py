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


def texts() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


def says_why(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> bool:
    """Tell whether a comment in a function, which its readers see and its callers do not, says."""
    own = lines[node.lineno - 1 : node.end_lineno]
    return any(line.strip().startswith("# Over") and REASON in line for line in own)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without those of its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        first = function.body[0]
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def unexplained(text: str) -> list[str]:
    """Return the long functions of a file without a reason, and "" for the file, whose docstring
    has none."""
    found, tree, lines = [], ast.parse(text), text.splitlines()
    if len(lines) > MAX_FILE and REASON not in " ".join((ast.get_docstring(tree) or "").split()):
        found.append("")
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and code_lines(node) > MAX_FUNCTION
            and not says_why(node, lines)
        ):
            found.append(node.name)
    return found


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, text in texts():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_long_files_and_functions_say_why() -> None:
    found = {name: names for name, text in texts() if (names := unexplained(text))}
    assert found == {}, (
        f"split them, or write 'Over {MAX_FILE}{REASON}…' into the docstring of the file, "
        f"'# Over {MAX_FUNCTION}{REASON}…' into the function"
    )


def test_callers_do_not_read_why_a_function_is_long() -> None:
    for name, text in texts():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                assert REASON not in " ".join((ast.get_docstring(node) or "").split()), name


@pytest.mark.parametrize(("comment", "found"), [("", ["f"]), (f"# Over 60{REASON}x.", [])])
def test_a_long_function_is_found_by_its_code_alone(comment: str, found: list[str]) -> None:
    body = "\n".join([f"    {comment}", *["    x = 1"] * MAX_FUNCTION])
    assert unexplained(f'def f():\n    """Do it."""\n{body}\n') == found
    short = f'def f():\n    """Do it.{chr(10) * 99}"""\n    return 1\n'
    assert unexplained(short) == []
