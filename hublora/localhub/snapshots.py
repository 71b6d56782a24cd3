"""Snapshots of the Hugging Face cache: `models--OWNER--NAME/snapshots/<commit>/…`.

Its files are links to blobs that are named by their etag: the sha256 of a large file, git's own
sha1 of any other. So what a file is, and that it is whole, can be seen from its name.
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .offline import put_file
from .store import Store
from .store.errors import Malformed
from .store.git import DEFAULT_BRANCH, Entry
from .store.names import check_path
from .store.operations import DeleteFile, Operation, PutFile, PutLarge
from .store.patterns import Attributes, default_attributes
from .store.pointers import Pointer
from .store.repos import Repo
from .store.writing import Stage

_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit, as far as somebody has downloaded them."""

    folder: Path
    repo_id: str
    kind: str
    commit: str

    def file(self, _: str, entry: Entry) -> Path | None:
        """Return the file of an entry, if it is here in full."""
        path = self.folder / entry.path
        return path if path.is_file() and path.stat().st_size == entry.size else None

    def paths(self) -> list[str]:
        """Return the paths of all files."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(check_path(path.relative_to(self.folder).as_posix()) for path in files)


def find(folder: Path) -> Snapshot | None:
    """Return the snapshot that a folder is, or that `main` is in a repo's folder of the cache."""
    folder = folder.absolute()
    main = folder / "refs" / DEFAULT_BRANCH
    if main.is_file() and (folder / "snapshots").is_dir():
        folder = folder / "snapshots" / main.read_text().strip()
    kind, *name = folder.parent.parent.name.split("--", 2)
    if folder.parent.name != "snapshots" or not _COMMIT.fullmatch(folder.name):
        return None
    if kind not in _KINDS or len(name) != 2 or not folder.is_dir():
        return None
    return Snapshot(folder, "/".join(name), _KINDS[kind], folder.name)


def operations(store: Store, repo: Repo, stage: Stage, snapshot: Snapshot) -> list[Operation]:
    """Return what makes `main` hold the files of a snapshot and no others.

    Raises:
        Malformed: A file is not what its name in the cache says.
    """
    paths = snapshot.paths()
    theirs = snapshot.folder / ".gitattributes"
    attributes = theirs.read_bytes() if theirs.is_file() else default_attributes(repo.kind)
    told = Attributes(attributes.decode("utf-8", "replace"))
    changes = [_put(store, repo, stage, told, snapshot.folder, path) for path in paths]
    standing = {entry.path for entry in stage.repo.files(stage.repo.resolve(DEFAULT_BRANCH))}
    # Ours tells git what is large; upstream's, where it was downloaded, takes its place.
    gone = standing - set(paths) - {".gitattributes"}
    return [*changes, *(DeleteFile(path) for path in sorted(gone))]


def _put(
    store: Store, repo: Repo, stage: Stage, told: Attributes, folder: Path, path: str
) -> Operation:
    file = folder / path
    blob = file.resolve().name
    if _SHA256.fullmatch(blob):
        expected = Pointer(blob, file.stat().st_size)
        if not store.large.link(repo.id, [expected]):
            store.large.adopt(repo.id, file, expected)
        return PutLarge(path, expected)
    if not _COMMIT.fullmatch(blob):  # a copy of the cache without its links
        return put_file(store, repo, stage, told, folder, path)
    made = stage.blob(file.read_bytes())
    if made != blob:
        raise Malformed(f"{path} is damaged: its content is not what {blob} says.")
    return PutFile(path, made)
