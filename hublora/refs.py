"""Refs of adapters and bases, repo ids and revisions: parsed once, rendered back.

    ref      := where [":" weight]
    where    := repo | page | url | local
    repo     := ["hf://"] owner "/" name ["@" revision] ["/" path]
    page     := "https://huggingface.co/" owner "/" name
                ["/" ("blob" | "resolve" | "tree") "/" revision ["/" path]]
    url      := "https://…/file.safetensors" | "https://civitai.com/api/download/models/" number
    local    := a path that starts with ".", "/" or "~", or a file or folder that exists
    weight   := a decimal number from -1000 to 1000
    refs     := ref ("|" ref)*          (the list form of Replicate's LoRA service)

A local folder takes precedence over a repo of that name; `hf://owner/name` is always the repo.

Slashes inside a revision are written `%2F` as in Hub URLs (`refs%2Fpr%2F1`); the short form
`@refs/pr/1` is understood as well. In a path, `%3A`, `%7C` and `%25` stand for `:`, `|` and `%`.

Source of the repo naming rules: huggingface_hub `validate_repo_id`; of the page URLs: the Hub.

Over 300 lines because one grammar is parsed and rendered in one place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NewType
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from hublora.errors import RefError

EXAMPLE = "user/pokemon-lora, user/pokemon-lora@main:0.8 or ./pytorch_lora_weights.safetensors"

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?P<owner>{_NAME})/(?P<name>{_NAME})(?:@(?P<rest>.+)|/(?P<path>.+))?\Z")
_WEIGHT = re.compile(r"(?P<where>.+):(?P<weight>[^:/|@]*)\Z", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
MAX_WEIGHT = 1000  # a larger weight turns every image into noise
_SPECIAL_REVISION = re.compile(r"(refs/(?:pr|convert|heads|tags)/[^/]+)(?:/(.+))?\Z")
_REVISION = re.compile(r"(?!-)[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*\Z")
# Civitai's addresses name no file.
_CIVITAI = re.compile(r"(?:www\.)?civitai\.(?:com|red|green)")
_CIVITAI_DOWNLOAD = re.compile(r"/api/download/models/\d+")
_CIVITAI_VERSION = re.compile(r"(?:^|&)modelVersionId=(\d+)")
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")  # and the host of HF_ENDPOINT
_ESCAPES = str.maketrans({char: quote(char) for char in "%:|"})
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

RefText = str | os.PathLike[str]  # a ref as it is typed, or the path of a file or folder
Kind = Literal["repo", "url", "local"]
RepoId = NewType("RepoId", str)  # owner/name, checked by `parse_repo_id`
Revision = NewType("Revision", str)  # a branch, tag or commit, checked by `parse_revision`


@dataclass(frozen=True)
class AdapterRef:
    """One adapter and its weight.

    Attributes:
        kind: "repo" for a Hub repo, "url" for an https URL, "local" for a file or folder.
        location: The repo id, the URL or the path.
        revision: Branch, tag or commit of a repo; None for its main branch.
        path: File inside a repo, POSIX style; None for the repo's only adapter.
        weight: Factor on the adapter's update, -1000 to 1000; 1.0 applies it as trained.
    """

    kind: Kind
    location: str
    revision: Revision | None = None
    path: str | None = None
    weight: float = 1.0

    @classmethod
    def parse(cls, text: RefText) -> AdapterRef:
        """Parse one ref of the grammar above; a `Path` is a local file or folder.

        Raises:
            RefError: The text is not a ref; the message names the wrong part and a right ref.
        """
        if isinstance(text, os.PathLike):
            return cls("local", os.fspath(text))
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

    def at(self, commit: str, path: str) -> AdapterRef:
        """Return this ref at a commit and a file."""
        return AdapterRef(self.kind, self.location, Revision(commit), path, self.weight)

    @property
    def repo_id(self) -> RepoId:
        """The location of a ref of kind "repo"."""
        assert self.kind == "repo", self
        return RepoId(self.location)

    @property
    def hidden_repo(self) -> str | None:
        """The repo of the same name as a local path, which takes precedence; None without one."""
        hides = self.kind == "local" and _REPO.match(self.location)
        return f"hf://{self.location}" if hides else None

    @property
    def public(self) -> str:
        """The ref without its weight and without what of a URL may be a secret."""
        where = public_url(self.location) if self.kind == "url" else self.location
        return str(replace(self, location=where, weight=1.0))


@dataclass(frozen=True)
class BaseRef:
    """A base model: a Hub repo at a revision, or a local folder; exactly one is set. Of both, a
    single .safetensors file may be meant.

    Attributes:
        repo_id: owner/name of a Hub repo.
        folder: A local folder, or a local file.
        revision: Branch, tag or commit of the repo; None for its main branch.
        file: Path of a single file inside the repo, POSIX style; None for the repo.
        components: Pipeline, at a revision, that has what a single file lacks; None for the one of
            which the file is a version.
    """

    repo_id: RepoId | None
    folder: Path | None = None
    revision: Revision | None = None
    file: str | None = None
    components: AdapterRef | None = None

    @classmethod
    def parse(
        cls, text: RefText, revision: str | None = None, components: str | None = None
    ) -> BaseRef:
        """Parse a Hub id or the path of a folder, or of a single file in one of them; a path that
        exists takes precedence.

        `hf://owner/name` is always the repo.

        Args:
            text: owner/name, owner/name/path/file.safetensors, or a path.
            revision: Branch, tag or commit of a repo.
            components: owner/name, with @revision if it is not the newest, or a folder.

        Raises:
            RefError: The text is empty, or neither a path nor of the form owner/name.
        """
        named = _parse_base(text, revision)
        if components is None:
            return named
        ref = AdapterRef.parse(components)
        if ref.kind == "url" or ref.path or ref.weight != 1:
            raise RefError(
                f"The components {components!r} must be the repo id or folder of a pipeline.",
                "Name one: --components owner/name, or --components ./folder.",
            )
        return replace(named, components=ref)

    @property
    def name(self) -> str:
        """The Hub id with the file, or the name of the folder or file."""
        if self.repo_id is not None:
            return f"{self.repo_id}/{self.file}" if self.file else self.repo_id
        assert self.folder is not None, "one of both is set"
        return self.folder.resolve().name


def _parse_base(text: RefText, revision: str | None) -> BaseRef:
    name = os.fspath(text)
    if not name.strip():
        raise RefError(
            f"The base must be the repo id or folder of a diffusers pipeline, got {name!r}.",
            "Name one: --base owner/name, or --base ./folder.",
        )
    if isinstance(text, os.PathLike) or _is_local(name):
        if name.endswith(_PICKLES):
            raise _pickle(name)
        return BaseRef(None, Path(name).expanduser())
    bare, commit = name.removeprefix("hf://"), parse_revision(revision) if revision else None
    if match := _REPO.match(bare):
        repo_id, path = f"{match['owner']}/{match['name']}", match["path"]
        if repo_id.endswith((".safetensors", *_PICKLES)):
            raise RefError(
                f"There is no file {name}.",
                "Name a file that exists, or one in a repo: owner/name/file.safetensors",
            )
        if path is not None and path.endswith((".safetensors", *_PICKLES)):
            return BaseRef(parse_repo_id(repo_id), None, commit, _check_path(path, repo_id, name))
    return BaseRef(parse_repo_id(bare, "The base"), None, commit)


def parse_refs(texts: RefText | Iterable[RefText]) -> list[AdapterRef]:
    """Parse refs that are given one by one, joined by `|`, or both.

    Raises:
        RefError: A ref does not parse.
    """
    alone = isinstance(texts, str | bytes) or not isinstance(texts, Iterable)
    joined: list[Any] = [texts] if alone else [*texts]  # type: ignore[misc]
    return [AdapterRef.parse(part) for one in joined for part in _split_refs(one)]


def _split_refs(joined: Any) -> list[Any]:
    """Return the refs in a text; other types are left for `AdapterRef.parse` to refuse."""
    return joined.split("|") if isinstance(joined, str) else [joined]


def parse_repo_id(text: str, flag: str = "The repo id") -> RepoId:
    """Parse a repo id of the form owner/name.

    Args:
        text: The repo id.
        flag: Name of the setting in messages.

    Raises:
        RefError: It has another form.
    """
    match = _REPO.match(text)
    wrong = not match or match["rest"] or match["path"]
    if wrong or ".." in text or "--" in text or text.endswith(".git"):
        raise RefError(
            f"{flag} {text!r} is not of the form owner/name.",
            "Write it like me/pokemon-lora (letters, digits, '-', '_' and '.').",
        )
    return RepoId(text)


def is_repo(text: str | None) -> bool:
    """Return whether `text` is a repo id, and neither a local path nor that of a checkpoint."""
    if text is None or _is_local(text) or re.search(r"checkpoint-\d+/?$", text):
        return False
    match = _REPO.match(text)
    return match is not None and not (match["rest"] or match["path"])


def is_single_file(base: str | None) -> bool:
    """Return whether a base that is named may be a single file; one that is not named may be."""
    return base is None or base.endswith(".safetensors")


def public_url(url: str) -> str:
    """Return an address without user, password, query and fragment, which may hold a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all
        return url.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_revision(text: str) -> Revision:
    """Parse the name of a branch, a tag or a commit.

    Raises:
        RefError: Git allows no such name (the safe part of git-check-ref-format's rules).
    """
    if not _REVISION.match(text) or ".." in text or text.endswith((".", ".lock")):
        raise RefError(
            f"{text!r} is not a revision.", "Name a branch, a tag or a commit, such as main."
        )
    return Revision(text)


def _split_weight(text: str) -> tuple[str, float]:
    match = _WEIGHT.match(text)
    if not match or _exists(text):
        return text, 1.0
    if not _NUMBER.match(match["weight"]):
        # A Windows drive is not a weight; anything else after a colon is a mistake.
        if re.match(r"\A[A-Za-z]\Z", match["where"]):
            return text, 1.0
        raise RefError(
            f"The weight {match['weight']!r} in {text!r} is not a number.",
            f"Write it like {match['where']}:0.8.",
        )
    weight = float(match["weight"])
    if not abs(weight) <= MAX_WEIGHT:
        raise RefError(
            f"The weight of {match['where']} must be between -{MAX_WEIGHT} and {MAX_WEIGHT}, "
            f"got {match['weight']}.",
            f"Write it like {match['where']}:0.8.",
        )
    return match["where"], weight


def _is_local(where: str) -> bool:
    if where.startswith((".", "/", "~", os.sep)) or re.match(r"\A[A-Za-z]:[\\/]", where):
        return True
    return _exists(where)


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # an invalid file name, or an unknown user
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
            f"The URL of {host} contains a user name or password, which images would record.",
            "Remove it.",
        )
    if host in _HUB_HOSTS or parts.netloc == urlsplit(_endpoint()).netloc:
        return _parse_page(where, weight, text)
    if parts.scheme != "https":
        raise RefError(f"{where!r} is not an https URL.", "Adapters are only fetched over https.")
    if _CIVITAI.fullmatch(host):
        _check_civitai(parts.path, parts.query)
    elif not parts.path.endswith(".safetensors"):
        raise RefError(
            f"{where!r} does not end in .safetensors.", "Only safetensors files are opened."
        )
    return AdapterRef("url", where, weight=weight)


def _check_civitai(path: str, query: str) -> None:
    """Check that an address at Civitai is a download.

    Raises:
        RefError: It is a page; the hint has the address of its download where that is known.
    """
    if _CIVITAI_DOWNLOAD.fullmatch(path) or path.endswith(".safetensors"):
        return
    version = _CIVITAI_VERSION.search(query)
    number = version[1] if version else "ID"
    raise RefError(
        f"The address {path!r} at Civitai is a page, not a download.",
        f"Write https://civitai.com/api/download/models/{number}"
        + ("" if version else ", with the ID of the version from the page's Download button."),
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "")


def _parse_page(url: str, weight: float, text: str) -> AdapterRef:
    # Here, because huggingface_hub takes as long to import as all of hublora's command line.
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        page = parse_hf_uri(url, endpoint=_endpoint() or None)
    except HfUriError as error:
        repo = "/".join(urlsplit(url).path.strip("/").split("/")[:2])
        raise RefError(
            f"{text!r} is not the page of a repo or of a file in one.",
            f"Write {repo} instead." if _REPO.match(repo) else f"Write a ref like {EXAMPLE}.",
        ) from error
    if page.type != "model":
        raise RefError(
            f"{text!r} is the page of a {page.type}, which is not an adapter.",
            f"Write a ref like {EXAMPLE}.",
        )
    return _repo_ref(page.id, page.revision, page.path_in_repo or None, weight, text)


def _parse_repo(where: str, weight: float, text: str) -> AdapterRef:
    match = _REPO.match(where)
    if not match:
        # Whose it is depends on nobody's login: the same command means the same to everybody.
        bare = re.match(rf"{_NAME}\Z", where)
        hint = f"Name its owner, too: OWNER/{where}." if bare else f"Write one like {EXAMPLE}."
        raise RefError(f"{text!r} is not an adapter ref.", hint)
    repo = f"{match['owner']}/{match['name']}"
    revision, path = _split_revision(match["rest"]) if match["rest"] else (None, match["path"])
    return _repo_ref(repo, revision, unquote(path) if path else None, weight, text)


def _split_revision(rest: str) -> tuple[str, str | None]:
    special = _SPECIAL_REVISION.match(rest)
    if special:
        return special[1], special[2]
    revision, _, path = rest.partition("/")
    return unquote(revision), path or None


def _repo_ref(
    repo: str, revision: str | None, path: str | None, weight: float, text: str
) -> AdapterRef:
    return AdapterRef(
        "repo",
        parse_repo_id(repo),
        None if revision is None else parse_revision(revision),
        None if path is None else _check_path(path, repo, text),
        weight,
    )


def _pickle(path: str) -> RefError:
    return RefError(
        f"{path!r} is a pickle file, which can run code when it is opened.",
        "Ask its author for a .safetensors file.",
    )


def _check_path(path: str, repo: str, text: str) -> str:
    if path.endswith(_PICKLES):
        raise _pickle(path)
    parts = path.rstrip("/").split("/")
    if "\\" in path or "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise RefError(f"The path {path!r} in {text!r} leaves the repo.", f"Write {repo} instead.")
    return path.rstrip("/")
