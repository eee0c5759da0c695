"""The two states of a project that have a dvc.lock: the files of the working folder, and those of the last commit."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import git
from pipeline.errors import PipelineError
from pipeline.trust import objects

if TYPE_CHECKING:
    from dvc.repo import Repo


class State(ABC):
    """Files by their path from the project on, with forward slashes.

    Attributes:
        prefix: before a path in a message.
    """

    prefix = ""

    @abstractmethod
    def files(self, path: str) -> list[str]:
        """All files of a folder, or the file itself; none where there is neither."""

    @abstractmethod
    def contents(self, files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The bytes of files, one at a time."""

    @abstractmethod
    def md5s(self, files: Iterable[str], count: Callable[[int], None]) -> dict[str, str]:
        """The md5 of each file that can be read; `count` is told the bytes."""

    def text(self, path: Path) -> str:
        """Of a file.

        Raises:
            PipelineError: there is none, or it holds something else.
        """
        for _, content in self.contents([path.as_posix()]):
            try:
                return content.decode("utf-8")
            except UnicodeDecodeError:
                raise PipelineError(f"{self.prefix}{path}: not UTF-8; fix: git checkout {path}") from None
        raise PipelineError(f"{self.prefix}{path}: no such file; fix: dvc repro, then git add {path}")

    def md5_of(self, path: str, md5s: Mapping[str, str]) -> str:
        """The hash of a file or folder by DVC's rules, from those of all files; empty where it is not there."""
        files = self.files(path)
        if files == [path]:
            return md5s.get(path, "")
        root = f"{path}/"
        return objects.folder_md5({name.removeprefix(root): md5s.get(name, "") for name in files}) if files else ""


class Workspace(State):
    """The working folder, as DVC sees it: without what .dvcignore names."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.root = Path(repo.root_dir)
        self._files: dict[str, list[str]] = {}

    def files(self, path: str) -> list[str]:
        """All files of a folder, or the file itself; none where there is neither."""
        if path not in self._files:
            full = self.root / path
            if full.is_dir():
                found = self.repo.dvcignore.find(self.repo.fs, str(full))
                self._files[path] = sorted(Path(file).relative_to(self.root).as_posix() for file in found)
            else:
                self._files[path] = [path] if full.is_file() else []
        return self._files[path]

    def contents(self, files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The bytes of files, one at a time."""
        for name in files:
            try:
                yield name, (self.root / name).read_bytes()
            except OSError:  # told as missing
                continue

    def md5s(self, files: Iterable[str], count: Callable[[int], None]) -> dict[str, str]:
        """The md5 of each file that can be read; `count` is told the bytes."""
        found = objects.hashes((self.root / name for name in files), count)
        return {path.relative_to(self.root).as_posix(): md5 for path, md5 in found.items() if md5 is not None}


class Commit(State):
    """What git has at a revision."""

    def __init__(self, root: Path, revision: str = "HEAD") -> None:
        self.root, self.prefix = root, f"{revision}:"
        # the project's folder in the repository, with a slash
        within = git.said("rev-parse", "--show-prefix", folder=root).decode().strip()
        listed = git.said("ls-tree", "-r", "-z", "--full-tree", revision, "--", within or ".", folder=root)
        self.blobs: dict[str, str] = {}
        for line in filter(None, listed.decode("utf-8", "surrogateescape").split("\0")):
            (_, kind, blob), name = line.partition("\t")[0].split(), line.partition("\t")[2]
            if kind == "blob":
                self.blobs[name.removeprefix(within)] = blob

    def files(self, path: str) -> list[str]:
        """All files of a folder, or the file itself; none where there is neither."""
        if path in self.blobs:
            return [path]
        return sorted(name for name in self.blobs if name.startswith(f"{path}/"))

    def contents(self, files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The bytes of files, one at a time."""
        names = [name for name in files if name in self.blobs]
        if not names:
            return
        wanted = "".join(f"{self.blobs[name]}\n" for name in names).encode()
        answer = git.said("cat-file", "--batch", folder=self.root, given=wanted)
        start = 0
        for name in names:
            end = answer.index(b"\n", start)
            size = int(answer[start:end].split()[2])
            yield name, answer[end + 1 : end + 1 + size]
            start = end + size + 2

    def md5s(self, files: Iterable[str], count: Callable[[int], None]) -> dict[str, str]:
        """The md5 of each file that git has."""
        found = {}
        for name, content in self.contents(files):
            found[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
            count(len(content))
        return found
