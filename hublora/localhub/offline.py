"""Working on a data folder without HTTP: users, tokens, and taking in a folder as a commit.

All of it is safe while a server runs on the same folder.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from .store import Store
from .store.errors import AlreadyExists, Malformed, RepoNotFound
from .store.git import DEFAULT_BRANCH
from .store.names import check_path
from .store.operations import DeleteFile, Operation, PutFile, PutLarge
from .store.patterns import Attributes
from .store.repos import Repo
from .store.writing import Stage, signature

_REGULAR_BYTES = 10 << 20
_SKIPPED = frozenset({".git", ".cache", "__pycache__", ".DS_Store"})


def add_user(data_dir: Path | str, name: str) -> None:
    """Add a user to a data folder."""
    Store(data_dir).people.add(name)


def create_token(data_dir: Path | str, user: str, role: str = "write", label: str = "token") -> str:
    """Give out a new token, `read` or `write`; it cannot be read again."""
    return Store(data_dir).people.create_token(user, role, label)


def import_folder(
    data_dir: Path | str,
    repo_id: str,
    folder: Path | str,
    repo_type: str = "model",
    message: str = "Import folder",
    *,
    private: bool = False,
    mirror: bool = False,
    time: int | None = None,
) -> str:
    """Make the files of `folder` the newest commit of a repo; return the commit's id.

    The repo and its owner are made when they are not there. The same content again makes no new
    commit. Hidden caches and `.git` are left out.

    Args:
        data_dir: The data folder.
        repo_id: `owner/name`.
        folder: Folder whose files are imported.
        repo_type: model, dataset or space.
        message: The commit's title.
        private: Whether a repo that is made now is private.
        mirror: Also remove what the repo has and the folder lacks.
        time: Unix time of the commits in seconds; None: now. The same files at the same
            time have the same commit id on every Hub.
    """
    source, store = Path(folder), Store(data_dir)
    if not source.is_dir():
        raise Malformed(f"There is no folder {source}.")
    with contextlib.ExitStack() as undo:
        repo = _repo(store, repo_type, repo_id, private, time, undo)
        with store.commits.stage(repo) as stage:
            operations = _operations(store, repo, stage, source, mirror)
            who = signature(repo.owner, time)
            commit = store.commits.apply(
                repo, stage, operations, f"{message}\n", who, skip_empty=True
            )
        undo.pop_all()  # it is whole: nothing is taken back
    return commit


def _operations(
    store: Store, repo: Repo, stage: Stage, source: Path, mirror: bool
) -> list[Operation]:
    """Return what makes `main` hold the files of a folder; their contents are staged."""
    git, paths = stage.repo, sorted(_paths(source))
    standing = git.resolve(DEFAULT_BRANCH)
    attributes = Attributes(
        (git.read_file(standing, ".gitattributes") or b"").decode("utf-8", "replace")
    )
    operations = [put_file(store, repo, stage, attributes, source, path) for path in paths]
    if mirror:
        gone = {entry.path for entry in git.files(standing)} - set(paths) - {".gitattributes"}
        operations += [DeleteFile(path) for path in sorted(gone)]
    return operations


def _repo(
    store: Store,
    kind: str,
    repo_id: str,
    private: bool,
    time: int | None,
    undo: contextlib.ExitStack,
) -> Repo:
    """Return the repo; where it or its owner had to be made, `undo` takes that back."""
    try:
        return store.repos.find(kind, repo_id)
    except RepoNotFound:
        owner, _, name = repo_id.partition("/")
    try:
        store.people.add(owner)
        undo.callback(store.people.remove, owner)
    except AlreadyExists:
        pass
    try:
        sdk = "static" if kind == "space" else None
        repo = store.create_repo(kind, owner, name, private=private, sdk=sdk, time=time)
    except AlreadyExists:
        return store.repos.find(kind, repo_id)
    undo.callback(store.delete_repo, repo)
    return repo


def _paths(source: Path) -> list[str]:
    """Return the files below a folder; links are followed only to plain files inside it."""
    inside = source.resolve()
    found = []
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        if _SKIPPED & set(relative.parts) or not path.is_file():
            continue
        # A snapshot of the Hugging Face cache is links to `../../blobs/…`: those are files too.
        if path.is_symlink() and not _is_cache_link(path, inside):
            continue
        found.append(check_path(relative.as_posix()))
    return found


def _is_cache_link(path: Path, inside: Path) -> bool:
    target = path.resolve()
    return target.is_relative_to(inside) or target.parent.name == "blobs"


def put_file(
    store: Store, repo: Repo, stage: Stage, attributes: Attributes, source: Path, path: str
) -> Operation:
    """Return what writes one file of a folder, as a large one if it is: its content is staged."""
    file = source / path
    size = file.stat().st_size
    if size and (size > _REGULAR_BYTES or attributes.is_large(path) or _is_binary(file)):
        return PutLarge(path, store.large.adopt(repo.id, file))
    return PutFile(path, stage.blob(file.read_bytes()))


def _is_binary(file: Path) -> bool:
    with file.open("rb") as opened:
        return b"\0" in opened.read(512)
