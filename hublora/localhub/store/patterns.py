"""Which path matches which line of `.gitignore` and `.gitattributes`.

Grammar: https://git-scm.com/docs/gitignore#_pattern_format
"""

from __future__ import annotations

import functools
import re

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


class Attributes:
    """The `filter=lfs` rules of one `.gitattributes` file."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in text.splitlines()[:5000]:
            pattern, *attributes = line.split()[:20] or [""]
            if not pattern or pattern.startswith(("#", "!", "[")):
                continue
            for attribute in attributes:
                if attribute in ("filter=lfs", "-filter", "!filter"):
                    self._rules.append((_compiled(pattern), attribute == "filter=lfs"))

    def is_large(self, path: str) -> bool:
        """Tell whether git would keep `path` in LFS; the last rule that matches decides."""
        large = False
        for pattern, answer in self._rules:
            if pattern.fullmatch(path):
                large = answer
        return large


class Ignore:
    """One `.gitignore` file."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for raw in text.splitlines()[:5000]:
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            ignore = not line.startswith("!")
            self._rules.append((_compiled(line.removeprefix("!"), below=True), ignore))

    def ignores(self, path: str) -> bool:
        """Tell whether `path` is to be left out."""
        ignored = False
        for pattern, answer in self._rules:
            if pattern.fullmatch(path):
                ignored = answer
        return ignored


@functools.lru_cache(maxsize=2000)
def _compiled(pattern: str, below: bool = False) -> re.Pattern[str]:
    """Turn a git pattern into a regular expression over the whole path."""
    pattern = pattern[:300]
    folder_only = pattern.endswith("/")
    anchored = "/" in pattern.rstrip("/")
    body = _translate(pattern.strip("/"))
    head = "" if anchored else "(?:.*/)?"
    tail = ("/.*" if folder_only else "(?:/.*)?") if below else ""
    return re.compile(head + body + tail, re.DOTALL)


# Runs of stars are folded first, so that no pattern makes the matcher try everything.
_PARTS = re.compile(r"(\*\*/)|(/\*\*$)|(\*+)|(\?)|(\[[^\]/]*\])|(.)", re.DOTALL)


def _translate(glob: str) -> str:
    out = []
    for deep, tail, star, one, group, plain in _PARTS.findall(glob):
        if deep:
            out.append("(?:.*/)?")
        elif tail:
            out.append("/.*")
        elif star:
            out.append("[^/]*")
        elif one:
            out.append("[^/]")
        elif group and len(group) > 2:
            inner = group[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[^{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]")
        else:
            out.append(re.escape(group or plain))
    return "".join(out)
