"""Which path matches which line of `.gitignore` and `.gitattributes`.

Grammar: https://git-scm.com/docs/gitignore#_pattern_format
"""

from __future__ import annotations

import re

from .globs import Globs

MAX_IGNORE = 64 << 10
MAX_ATTRIBUTES = 256 << 10
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(.*)')
# What the Hub puts into a new repo: https://huggingface.co/docs/hub/repositories-getting-started
LARGE_SUFFIXES = (
    "7z arrow avro bin bin.* bz2 ckpt ftz gguf gz h5 joblib lz4 mlmodel model msgpack npy npz onnx"
    " ot parquet pb pickle pkl pt pth rar safetensors tar tar.* tflite tgz wasm xz zip zst"
    " *tfevents*"
)
MEDIA_SUFFIXES = "png jpg jpeg gif webp bmp tiff mp4 webm mp3 wav flac ogg pcm raw sam aac"


def default_attributes(kind: str) -> bytes:
    """Return the `.gitattributes` of a new repo; datasets keep media as large files too."""
    suffixes = f"{LARGE_SUFFIXES} {MEDIA_SUFFIXES if kind == 'dataset' else ''}".split()
    globs = ["saved_model/**/*"] + [s if s.startswith("*") else f"*.{s}" for s in suffixes]
    return "".join(f"{g} filter=lfs diff=lfs merge=lfs -text\n" for g in sorted(globs)).encode()


def attributes_line(path: str) -> str:
    """Return the line of `.gitattributes` that makes git keep exactly this path in LFS."""
    pattern = "/" + "".join(f"[{c}]" if c in "*?[" else c for c in path)
    if any(c.isspace() or c == '"' for c in pattern):
        pattern = '"' + pattern.replace('"', '\\"') + '"'
    return f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"


class Attributes:
    """The `filter=lfs` rules of one `.gitattributes` file; a path may also stand in quotes."""

    def __init__(self, text: str) -> None:
        patterns: list[str] = []
        self._answers: list[bool] = []
        for line in text[:MAX_ATTRIBUTES].splitlines():
            pattern, attributes = _split(line.strip())
            if not pattern or pattern.startswith(("#", "!")):
                continue
            for attribute in attributes:
                if attribute in ("filter=lfs", "-filter", "!filter"):
                    patterns.append(pattern)
                    self._answers.append(attribute == "filter=lfs")
        self._globs = Globs(patterns)

    def is_large(self, path: str) -> bool:
        """Tell whether git would keep `path` in LFS; the last rule that matches decides."""
        found = self._globs.last_match(path)
        return found is not None and self._answers[found]


def _split(line: str) -> tuple[str, list[str]]:
    """Return the pattern of a line and its attributes."""
    if line.startswith('"') and (quoted := _QUOTED.match(line)):
        return quoted[1].replace('\\"', '"'), quoted[2].split()
    pattern, *attributes = line.split() or [""]
    return pattern, attributes


def _without_spaces_at_the_end(line: str) -> str:
    """Return a line of `.gitignore` without them; one behind a backslash is meant."""
    text = line.rstrip()
    return line[: len(text) + 1] if text.endswith("\\") else text


class Ignore:
    """One `.gitignore` file."""

    def __init__(self, text: str) -> None:
        patterns: list[str] = []
        self._answers: list[bool] = []
        for line in text[:MAX_IGNORE].splitlines():
            rule = _without_spaces_at_the_end(line)
            if rule and not rule.startswith("#"):
                patterns.append(rule.removeprefix("!"))
                self._answers.append(not rule.startswith("!"))
        self._globs = Globs(patterns)

    def ignores(self, path: str) -> bool:
        """Tell whether git would leave out `path`; what is in a folder left out is never back."""
        for found in self._globs.matches_on_the_way(path):
            if ignored := found is not None and self._answers[found]:
                return ignored
        return False
