"""Wheel and sdist hold all that is needed, and the wheel works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel; the wheel is made from the sdist, as installers do."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        timeout=240,
    )
    return folder


def below(folder: str) -> set[str]:
    """Return the files in a folder of the checkout that belong to the project."""
    paths = (ROOT / folder).rglob("*")
    kept = {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()}
    return {path for path in kept if "__pycache__" not in path and not path.endswith(".pyc")}


def test_the_wheel_holds_package_templates_and_assets_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    templates = {f"hublora/{name}" for name in below("templates")}
    assert templates
    assert names == below("hublora") | templates


def test_the_sdist_holds_what_the_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("hublora", "templates", "tests", "docs"):
        assert below(folder) <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_wheel_works_away_from_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = (
        "import hublora\n"
        "from hublora.rendering import environment, template_folder\n"
        "print(hublora.__file__)\n"
        "print(template_folder())\n"
        "for name in environment().list_templates():\n"
        "    environment().get_template(name)\n"
        "from hublora.cli.main import hublora as root\n"
        "root.main(['--version'], standalone_mode=False)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    package, templates, version = done.stdout.splitlines()
    assert package == str(target / "hublora" / "__init__.py")
    assert templates == str(target / "hublora" / "templates")
    assert version.startswith("hublora ")
    with zipfile.ZipFile(wheel) as archive:
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"hf-lora = hublora.cli.main:run" in archive.read(points)


def test_a_file_imports_only_from_floors_below_its_own() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
