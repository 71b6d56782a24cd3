"""Names for adapters, parsed once and rendered back.

    ref      := where [":" weight]
    where    := repo | page | url | local
    repo     := ["hf://"] owner "/" name ["@" revision] ["/" path]
    page     := "https://huggingface.co/" owner "/" name
                ["/" ("blob" | "resolve" | "tree") "/" revision ["/" path]]
    url      := "https://…/file.safetensors"
    local    := a path that starts with ".", "/" or "~", or a file or folder that exists
    weight   := a decimal number from -1000 to 1000
    refs     := ref ("|" ref)*          (the list form of Replicate's LoRA service)

A folder that exists comes before a repo of that name; `hf://owner/name` is the repo in any case.

Slashes inside a revision are written `%2F` as in Hub URLs (`refs%2Fpr%2F1`); the short form
`@refs/pr/1` is understood as well. In a path, `%3A`, `%7C` and `%25` stand for `:`, `|` and `%`.

Source of the repo naming rules: huggingface_hub `validate_repo_id`; of the page URLs: the Hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from hublora.errors import RefError

EXAMPLE = "user/pokemon-lora, user/pokemon-lora@main:0.8 or ./pytorch_lora_weights.safetensors"

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?P<owner>{_NAME})/(?P<name>{_NAME})(?:@(?P<rest>.+)|/(?P<path>.+))?\Z")
_WEIGHT = re.compile(r"(?P<where>.+):(?P<weight>[^:/|@]*)\Z", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
MAX_WEIGHT = 1000  # more turns every image into noise, or into nothing
_SPECIAL_REVISION = re.compile(r"(refs/(?:pr|convert|heads|tags)/[^/]+)(?:/(.+))?\Z")
_REVISION = re.compile(r"(?!-)[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*\Z")
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")  # and the host of HF_ENDPOINT
_PAGE_KINDS = ("blob", "resolve", "tree", "raw")
_ESCAPES = str.maketrans({char: quote(char) for char in "%:|"})
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

Kind = Literal["repo", "url", "local"]


@dataclass(frozen=True)
class AdapterRef:
    """One adapter and how strongly it is applied.

    Attributes:
        kind: Where the adapter lies: a Hub repo, a URL or this machine.
        location: The repo id, the URL or the path.
        revision: Branch, tag or commit of a repo; None means its main branch.
        path: File inside a repo, POSIX style; None means the repo's only adapter.
        weight: Factor on the adapter's delta; 1.0 applies it as trained.
    """

    kind: Kind
    location: str
    revision: str | None = None
    path: str | None = None
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> AdapterRef:
        """Parse one ref of the grammar above.

        Raises:
            RefError: Naming the part that is wrong and showing a right ref.
        """
        if not isinstance(text, str):
            raise RefError(f"{text!r} is not an adapter ref.", f"Write one like {EXAMPLE}.")
        text = text.strip()
        if not text:
            raise RefError("The adapter ref is empty.", f"Write one like {EXAMPLE}.")
        where, weight = _split_weight(text)
        if where.startswith(("http://", "https://")):
            return _parse_url(where, weight, text)
        if _is_local(where):
            return cls("local", where, weight=weight)
        return _parse_repo(where.removeprefix("hf://"), weight, text)

    def __str__(self) -> str:
        text = self.location
        if self.revision:
            text += "@" + quote(self.revision, safe="")
        if self.path:
            text += "/" + self.path.translate(_ESCAPES)
        if self.weight != 1.0:
            text += f":{self.weight}"
        return text

    def at(self, revision: str, path: str) -> AdapterRef:
        """Return this ref pinned to a commit and a file."""
        return AdapterRef(self.kind, self.location, revision, path, self.weight)

    @property
    def hidden_repo(self) -> str | None:
        """The repo that a local path comes before because it is called like it, None if none is."""
        hides = self.kind == "local" and _REPO.match(self.location)
        return f"hf://{self.location}" if hides else None

    @property
    def public(self) -> str:
        """The ref without its weight and without a URL's query, which may hold a secret."""
        where = self.location.partition("?")[0] if self.kind == "url" else self.location
        return str(replace(self, location=where, weight=1.0))


def parse_refs(texts: str | Iterable[str]) -> list[AdapterRef]:
    """Parse refs given one by one, joined by `|`, or both.

    Raises:
        RefError: One of them does not parse.
    """
    alone = isinstance(texts, str | bytes) or not isinstance(texts, Iterable)
    joined: list[Any] = [texts] if alone else list(texts)
    return [AdapterRef.parse(part) for one in joined for part in _split_refs(one)]


def _split_refs(joined: Any) -> list[Any]:
    """Return the refs in a text; what is none is left for `AdapterRef.parse` to refuse."""
    return joined.split("|") if isinstance(joined, str) else [joined]


def check_repo_id(repo_id: str, flag: str = "The repo id") -> str:
    """Return `repo_id` if it has the form owner/name.

    Raises:
        RefError: It has another form.
    """
    match = _REPO.match(repo_id)
    wrong = not match or match["rest"] or match["path"]
    if wrong or ".." in repo_id or "--" in repo_id or repo_id.endswith(".git"):
        raise RefError(
            f"{flag} {repo_id!r} is not of the form owner/name.",
            "Write it like me/pokemon-lora (letters, digits, '-', '_' and '.').",
        )
    return repo_id


def check_base_name(model: str) -> str:
    """Return a base's name if it is a folder, or a repo id of the form owner/name; looks nothing up
    on the Hub.

    Raises:
        RefError: It is neither.
    """
    if not model.strip():
        raise RefError(
            f"The base must be the repo id or folder of a diffusers pipeline, got {model!r}.",
            "Name one: --base owner/name, or --base ./folder.",
        )
    if not model.startswith((".", "/", "~")) and not _is_there(model):
        check_repo_id(model, "The base")
    return model


def is_repo(text: str | None) -> bool:
    """Tell whether `text` is the id of a repo: not the path of something on this disk, and not what
    the path of a checkpoint looks like."""
    if text is None or _is_local(text) or re.search(r"checkpoint-\d+/?$", text):
        return False
    match = _REPO.match(text)
    return match is not None and not (match["rest"] or match["path"])


def check_revision(revision: str) -> str:
    """Return `revision` if git could have such a branch, tag or commit.

    Raises:
        RefError: It could not (git-check-ref-format's rules, the safe part of them).
    """
    if not _REVISION.match(revision) or ".." in revision or revision.endswith((".", ".lock")):
        raise RefError(
            f"{revision!r} is not a revision.", "Name a branch, a tag or a commit, such as main."
        )
    return revision


def _split_weight(text: str) -> tuple[str, float]:
    match = _WEIGHT.match(text)
    if not match or _is_there(text):
        return text, 1.0
    if not _NUMBER.match(match["weight"]):
        # A Windows drive or a port is not a weight; anything else after a colon is a mistake.
        if re.match(r"\A[A-Za-z]\Z", match["where"]):
            return text, 1.0
        raise RefError(
            f"The weight {match['weight']!r} in {text!r} is not a number.",
            f"Write it like {match['where']}:0.8.",
        )
    weight = float(match["weight"])
    if not abs(weight) <= MAX_WEIGHT:
        raise RefError(
            f"The weight {match['weight']} in {text!r} is beyond {MAX_WEIGHT}.",
            f"Write it like {match['where']}:0.8.",
        )
    return match["where"], weight


def _is_local(where: str) -> bool:
    if where.startswith((".", "/", "~", os.sep)) or re.match(r"\A[A-Za-z]:[\\/]", where):
        return True
    return _is_there(where)


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # no file system, or nobody, has such a name
        return False


def _parse_url(where: str, weight: float, text: str) -> AdapterRef:
    try:
        parts = urlsplit(where)
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise RefError(f"{where!r} is not a URL.", f"Write a ref like {EXAMPLE}.")
    if parts.username or parts.password:
        raise RefError(
            f"The URL of {host} holds a name or a password, which would be written into images.",
            "Leave it out.",
        )
    if host in _HUB_HOSTS or parts.netloc == urlsplit(_endpoint()).netloc:
        return _parse_page(parts.path.strip("/"), weight, text)
    if parts.scheme != "https":
        raise RefError(f"{where!r} is not an https URL.", "Adapters are only fetched over https.")
    if not parts.path.endswith(".safetensors"):
        raise RefError(
            f"{where!r} does not end in .safetensors.", "Only safetensors files are opened."
        )
    return AdapterRef("url", where, weight=weight)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "")


def _parse_page(path: str, weight: float, text: str) -> AdapterRef:
    parts = path.split("/")
    if parts[0] in ("datasets", "spaces"):
        raise RefError(
            f"{text!r} is a page of {parts[0]}, which are not adapters.",
            f"Write one like {EXAMPLE}.",
        )
    repo = "/".join(parts[:2])
    if len(parts) <= 2:
        return _parse_repo(repo, weight, text)
    if parts[2] not in _PAGE_KINDS or len(parts) < 4:
        raise RefError(
            f"{text!r} is not the page of a repo or of a file in one.", f"Write {repo} instead."
        )
    revision, rest = _split_revision("/".join(parts[3:]))
    return _repo_ref(repo, revision, rest, weight, text)


def _parse_repo(where: str, weight: float, text: str) -> AdapterRef:
    match = _REPO.match(where)
    if not match:
        raise RefError(f"{text!r} is not an adapter ref.", f"Write one like {EXAMPLE}.")
    repo = f"{match['owner']}/{match['name']}"
    revision, path = _split_revision(match["rest"]) if match["rest"] else (None, match["path"])
    return _repo_ref(repo, revision, path, weight, text)


def _split_revision(rest: str) -> tuple[str, str | None]:
    special = _SPECIAL_REVISION.match(rest)
    if special:
        return special[1], special[2]
    revision, _, path = rest.partition("/")
    return unquote(revision), path or None


def _repo_ref(
    repo: str, revision: str | None, path: str | None, weight: float, text: str
) -> AdapterRef:
    check_repo_id(repo)
    if revision is not None:
        check_revision(revision)
    if path is not None:
        path = _check_path(unquote(path), repo, text)
    return AdapterRef("repo", repo, revision, path, weight)


def _check_path(path: str, repo: str, text: str) -> str:
    if path.endswith(_PICKLES):
        raise RefError(
            f"{path!r} is a pickle file, which can run code when it is opened.",
            "Ask its author for a .safetensors file.",
        )
    parts = path.rstrip("/").split("/")
    if "\\" in path or "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise RefError(f"The path {path!r} in {text!r} leaves the repo.", f"Write {repo} instead.")
    return path.rstrip("/")
