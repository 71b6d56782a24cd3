"""Taking in a repo of another Hub with its commit ids, so that what is pinned to them stays valid.

With git objects, from the other Hub or from a clone of it, everything is kept: ids, history,
authors, tags. From a snapshot of the Hugging Face cache only files are had; the upstream id then is
an alias of a commit that is made here (`store.aliases`). No stranger gets here: whoever runs the
Hub writes it on the disk, with or without a server running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pygit2

from .large_sources import FetchFile
from .snapshots import Snapshot, operations
from .store import Store, packing
from .store.disk import workplace
from .store.errors import AlreadyExists, Conflict, NotThere, RepoNotFound, StoreError
from .store.git import DEFAULT_BRANCH, Entry, GitRepo
from .store.names import check_new_branch
from .store.repos import Repo
from .store.writing import advance, signature, standing_at

MAIN = f"refs/heads/{DEFAULT_BRANCH}"
Note = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """Where a mirror is put, and how much of it."""

    repo_id: str
    kind: str = "model"
    private: bool = False
    revisions: Sequence[str] = (DEFAULT_BRANCH,)  # whose large files are taken
    include: Sequence[str] = ()  # patterns of fnmatch; none means all
    exclude: Sequence[str] = ()


@dataclass
class Mirrored:
    """What was taken in."""

    repo_id: str
    commit: str = ""  # what main stands at, by its upstream id
    history: bool = True  # whether the git objects came, not only the files
    files: int = 0  # files that came now: with git objects, the large ones
    size: int = 0  # bytes of those
    left_out: list[str] = field(default_factory=list)  # paths whose content is not here
    made_repo: bool = False
    private: bool = True
    made_owner: str | None = None


def mirror_git(
    store: Store,
    target: Target,
    address: str,
    fetch_file: FetchFile,
    *,
    token: str | None = None,
    aliases: Mapping[str, str] | None = None,
    note: Note = lambda _: None,
) -> Mirrored:
    """Take in all branches and tags of a git repository and the large files of some revisions.

    Again, it brings what is new.

    Args:
        store: The store.
        target: Folder of the mirrored repo.
        address: URL or path that git fetches from.
        fetch_file: Returns the content of a large file by its path.
        token: The password for `address`.
        aliases: Upstream ids of commits of `address` that are known by those.
        note: Told what happens.

    Raises:
        NotThere: `address` does not answer, or has no such revision.
        Conflict: The repo is here with a history of its own.
    """
    with workplace(store.folder / "uploads") as place:
        note(f"Fetching the git objects of {address} …")
        _fetch(place / "git", address, token)
        theirs = GitRepo(place / "git")
        commits = [theirs.resolve(revision) for revision in target.revisions]
        repo, done = _repo(store, target)
        if store.git(repo).resolve(DEFAULT_BRANCH) not in store.aliases.of(repo.id).values():
            _check_history(store.git(repo), theirs, target.repo_id)
        for commit in commits:
            _take_large(store, repo, target, (theirs, commit), fetch_file, done, note)
        _publish(store, repo, theirs)
        for upstream, here in (aliases or {}).items():
            store.aliases.add(repo.id, upstream, here)
        git = store.git(repo)
        done.commit = git.public(git.resolve(DEFAULT_BRANCH))
        done.history = done.commit in git.raw
    return _show(store, repo, target, done)


def mirror_snapshot(store: Store, target: Target, snapshot: Snapshot) -> Mirrored:
    """Take in the files of a cached snapshot under the id of its commit.

    Raises:
        Malformed: A file is not what its name in the cache says.
        Conflict: The repo is here with a history of its own.
    """
    repo, done = _repo(store, target)
    try:
        _take_snapshot(store, repo, target, snapshot, done)
    except BaseException:
        if done.made_repo:
            store.delete_repo(repo)
        if done.made_owner:
            store.people.remove(done.made_owner)
        raise
    return _show(store, repo, target, done)


def _take_snapshot(
    store: Store, repo: Repo, target: Target, snapshot: Snapshot, done: Mirrored
) -> None:
    git = store.git(repo)
    done.commit = snapshot.commit
    if _has_commit(git, snapshot.commit):
        here = (git, snapshot.commit)
        _take_large(store, repo, target, here, snapshot.file, done, lambda _: None)
        store.large.settle(each["oid"] for each in store.large.listed(repo.id))
        return
    if not _is_fresh(git) and git.resolve(DEFAULT_BRANCH) not in store.aliases.of(repo.id).values():
        raise _history_of_its_own(target.repo_id)
    done.history = False
    with store.commits.stage(repo, git) as stage:
        changes = operations(store, repo, stage, snapshot)
        text = f"Files of {target.repo_id} at {snapshot.commit}\n"
        made = store.commits.apply(
            repo, stage, changes, text, signature(repo.owner), skip_empty=True
        )
    store.aliases.add(repo.id, snapshot.commit, made)
    entries = store.git(repo).files(made)
    done.files, done.size = len(entries), sum(entry.size for entry in entries)


def _fetch(folder: Path, address: str, token: str | None) -> None:
    raw = pygit2.init_repository(str(folder), bare=True, initial_head=DEFAULT_BRANCH)
    who = pygit2.UserPass("user", token) if token else None
    try:
        raw.remotes.create_anonymous(address).fetch(
            ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"],
            callbacks=pygit2.RemoteCallbacks(credentials=who),
            proxy=True,
        )
    except (pygit2.GitError, KeyError, ValueError) as problem:
        raise NotThere(f"{address} cannot be fetched: {problem}.") from problem
    if MAIN not in raw.references:
        raise NotThere(f"{address} has no branch '{DEFAULT_BRANCH}'.")


def _repo(store: Store, target: Target) -> tuple[Repo, Mirrored]:
    """Return the repo, made when it is not here; nobody sees a new one before it is whole."""
    done = Mirrored(target.repo_id)
    owner, _, name = target.repo_id.partition("/")
    try:
        return store.repos.find(target.kind, target.repo_id), done
    except RepoNotFound:
        pass
    try:
        store.people.add(owner, "org")
        done.made_owner = owner
    except AlreadyExists:
        owner = str(store.people.find(owner)["name"])
    done.made_repo = True
    sdk = "static" if target.kind == "space" else None
    return store.create_repo(target.kind, owner, name, private=True, sdk=sdk), done


def _show(store: Store, repo: Repo, target: Target, done: Mirrored) -> Mirrored:
    if done.made_repo:
        store.repos.update(repo, private=target.private)
    done.private = store.repos.by_id(repo.id).private
    return done


def _check_history(ours: GitRepo, theirs: GitRepo, name: str) -> None:
    standing, new = ours.resolve(DEFAULT_BRANCH), theirs.resolve(DEFAULT_BRANCH)
    if not _is_fresh(ours) and not _leads_to(theirs, new, standing):
        raise _history_of_its_own(name)


def _history_of_its_own(name: str) -> Conflict:
    return Conflict(
        f"{name} is already here with commits that upstream does not have.",
        "Mirror it under another name, or delete it first: hublora hub repo delete OWNER/NAME",
    )


def _is_fresh(git: GitRepo) -> bool:
    """Tell whether a repo has nothing but the commit that it was made with."""
    head = git.resolve(DEFAULT_BRANCH)
    return not git.commit(head).parents and [e.path for e in git.files(head)] == [".gitattributes"]


def _has_commit(git: GitRepo, commit: str) -> bool:
    return isinstance(git.raw.get(commit), pygit2.Commit)


def _leads_to(git: GitRepo, new: str, old: str) -> bool:
    """Tell whether `old` is in the history of `new`."""
    return old in git.raw and (new == old or git.raw.descendant_of(new, old))


def _take_large(
    store: Store,
    repo: Repo,
    target: Target,
    where: tuple[GitRepo, str],
    fetch_file: FetchFile,
    done: Mirrored,
    note: Note,
) -> None:
    git, commit = where
    for entry in git.files(commit):
        if entry.lfs is None or store.large.link(repo.id, [entry.lfs]):
            continue
        source = fetch_file(commit, entry) if _wanted(entry.path, target) else None
        if source is None:
            done.left_out.append(entry.path)
            continue
        store.large.adopt(repo.id, source, entry.lfs)
        note(f"{entry.path} ({entry.size / 1e6:.1f} MB)")
        done.files += 1
        done.size += entry.size


def _wanted(path: str, target: Target) -> bool:
    from huggingface_hub.utils import filter_repo_objects

    return bool(
        list(
            filter_repo_objects(
                [path],
                allow_patterns=list(target.include) or None,
                ignore_patterns=list(target.exclude) or None,
            )
        )
    )


def _publish(store: Store, repo: Repo, theirs: GitRepo) -> None:
    """Bring objects and refs into the repo, the objects and large files first."""
    git = store.git(repo)
    store.large.settle(row["oid"] for row in store.large.listed(repo.id))
    with store.lock(repo):
        packing.install(theirs.folder / "objects" / "pack", git.folder / "objects" / "pack")
        git = store.git(repo)
        for ref, (oid, _) in theirs.targets().items():
            standing = standing_at(git, ref)
            if ref == MAIN:
                if standing != oid:
                    store.commits.move(repo, git, ref, oid, standing)
            elif _may_come(git, ref, oid, standing):
                try:
                    advance(git, ref, oid, standing)
                except StoreError:
                    continue  # a branch of ours has the name, or a part of it


def _may_come(git: GitRepo, ref: str, oid: str, standing: str | None) -> bool:
    try:
        check_new_branch(ref.split("/", 2)[2])
    except StoreError:
        return False
    return standing is None or (ref.startswith("refs/heads/") and _leads_to(git, oid, standing))


def mirror_data_folder(store: Store, other: Store, target: Target, note: Note) -> Mirrored:
    """Take in a repo of another embedded Hub, from its data folder.

    Raises:
        RepoNotFound: It has none of that name.
    """
    source = other.repos.find(target.kind, target.repo_id)

    def fetch(_: str, entry: Entry) -> Path | None:
        held = other.large.has(source.id, entry.etag)
        return other.large.path(entry.etag) if held else None

    folder = str(other.git(source).folder)
    return mirror_git(store, target, folder, fetch, aliases=other.aliases.of(source.id), note=note)
