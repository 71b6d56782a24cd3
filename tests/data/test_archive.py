"""A .zip of images is trained on like a folder, and a hostile one leaves nothing behind."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hublora.data import DataConfig, archive, open_source
from hublora.errors import DataError


def png(colour: str = "red", size: tuple[int, int] = (16, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_zip(path: Path, files: dict[str, bytes | str], compress: bool = True) -> Path:
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def open_zip(path: Path, cache: Path):
    return open_source(DataConfig(archive=str(path), cache_dir=cache))


@pytest.mark.parametrize("top", ["", "photos/", "a/b/"])
def test_images_and_captions_are_found_below_any_single_folder(tmp_path: Path, top: str) -> None:
    files = {f"{top}x.png": png(), f"{top}x.txt": "a red square", f"{top}y.png": png("blue")}
    files[f"{top}y.txt"] = "a blue square"
    source = open_zip(make_zip(tmp_path / "mine.zip", files), tmp_path / "cache")
    assert source.id == "mine"
    assert [(e.name, e.captions) for e in source.examples] == [
        ("x.png", ("a red square",)),
        ("y.png", ("a blue square",)),
    ]


def test_it_is_the_same_source_as_the_folder_that_it_was_made_of(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    files = {"a.png": png(), "metadata.jsonl": '{"file_name": "a.png", "text": "a square"}\n'}
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    packed = open_zip(make_zip(tmp_path / "mine.zip", files), tmp_path / "cache")
    plain = open_source(DataConfig(folder=folder, cache_dir=tmp_path / "cache"))
    assert (packed.id, packed.fingerprint) == (plain.id, plain.fingerprint)


def test_the_same_content_is_unpacked_once(tmp_path: Path) -> None:
    files = {"a.png": png(), "a.txt": "a square"}
    open_zip(make_zip(tmp_path / "one.zip", files), tmp_path / "cache")
    folders = list((tmp_path / "cache" / "archives").iterdir())
    (tmp_path / "two.zip").write_bytes((tmp_path / "one.zip").read_bytes())
    open_zip(tmp_path / "two.zip", tmp_path / "cache")
    assert list((tmp_path / "cache" / "archives").iterdir()) == folders


def test_only_images_and_captions_are_written(tmp_path: Path) -> None:
    files = {"a.png": png(), "a.txt": "x", "run.sh": "rm", ".a.png": png(), "__MACOSX/a.png": b"?"}
    open_zip(make_zip(tmp_path / "a.zip", files), tmp_path / "cache")
    written = {path.name for path in (tmp_path / "cache" / "archives").glob("*/**/*.*")}
    assert written == {"a.png", "a.txt"}


def climbing(path: Path) -> None:
    make_zip(path, {"a.png": png(), "../../evil.png": png()})


def absolute(path: Path) -> None:
    make_zip(path, {"/tmp/evil.png": png()})


def backslashes(path: Path) -> None:
    make_zip(path, {"..\\..\\evil.png": png()})


def drive(path: Path) -> None:
    make_zip(path, {"C:evil.png": png()})


def link(path: Path) -> None:
    entry = zipfile.ZipInfo("a.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(entry, "/etc/passwd")


def bomb(path: Path) -> None:
    make_zip(path, {"a.png": png(), "a.txt": bytes(40 << 20)})


def liar(path: Path) -> None:
    """The directory states a size of one byte."""
    make_zip(path, {"a.txt": bytes(40 << 20)})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = (1).to_bytes(4, "little")
    path.write_bytes(raw)


def cut_short(path: Path) -> None:
    make_zip(path, {"a.png": png(size=(64, 64)), "a.txt": "x"})
    path.write_bytes(path.read_bytes()[:-30])


def no_zip(path: Path) -> None:
    path.write_bytes(b"PK but not really")


def empty(path: Path) -> None:
    make_zip(path, {})


def damaged(path: Path) -> None:
    make_zip(path, {"a.txt": "a caption of some length"}, compress=False)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"some", b"same", 1))


HOSTILE = [climbing, absolute, backslashes, drive, link, bomb, liar, cut_short, no_zip, damaged]


@pytest.mark.parametrize("make", [*HOSTILE, empty], ids=lambda make: make.__name__)
def test_a_hostile_archive_is_refused_in_a_sentence(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a.zip")
    with pytest.raises(DataError) as caught:
        open_zip(tmp_path / "a.zip", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert "a.zip" in str(caught.value) or make is empty
    assert not list(tmp_path.rglob("evil*"))
    left = list((tmp_path / "cache").glob("archives/*/*"))
    assert not left


def test_an_archive_that_would_not_fit_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    make_zip(tmp_path / "a.zip", {"a.txt": bytes(2000)})
    with pytest.raises(DataError, match="unpacked; at most"):
        open_zip(tmp_path / "a.zip", tmp_path / "cache")


@pytest.mark.parametrize("given", ["http://host/a.zip", "ftp://host/a.zip"])
def test_only_https_is_fetched(tmp_path: Path, given: str) -> None:
    with pytest.raises(DataError, match="must be a path or an https URL"):
        open_source(DataConfig(archive=given, cache_dir=tmp_path))


def test_a_zip_given_as_a_folder_is_refused_with_the_flag(tmp_path: Path) -> None:
    made = make_zip(tmp_path / "a.zip", {"a.png": png()})
    with pytest.raises(DataError) as caught:
        open_source(DataConfig(folder=made, cache_dir=tmp_path))
    assert f"--archive {made}" in str(caught.value.hint)
