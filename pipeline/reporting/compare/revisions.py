"""One side of a comparison: a git revision, a DVC experiment or the workspace, read without checking anything out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import git, lock, paths
from pipeline.errors import ParamsError, PipelineError, did_you_mean

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Revision:
    """A state of the project.

    Attributes:
        name: as the user wrote it.
        commit: 40 digits, or "" for the files as they lie in the workspace.
    """

    name: str
    commit: str

    @property
    def title(self) -> str:
        """Its name and the first digits of its commit."""
        short = self.commit[:7]
        return f"{self.name} ({short})" if short and not self.commit.startswith(self.name) else self.name

    def read(self, path: Path) -> bytes | None:
        """A file's content; None where this state has no such file."""
        if not self.commit:
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
        return git.found("cat-file", "blob", f"{self.commit}:{path.as_posix()}")

    def fetched(self, folder: Path, scratch: Path) -> Path | None:
        """A folder of data as this state has it: the workspace's own, or out of DVC's cache or remote.

        Args:
            folder: an output of a stage.
            scratch: an empty place that may be written to.

        Returns:
            Where it lies now; None where neither cache nor remote has it.
        """
        wanted = self._hash(folder)
        here = Revision(WORKSPACE, "")
        if folder.is_dir() and (not self.commit or (wanted and here._hash(folder) == wanted)):
            return folder
        if not self.commit:
            return None
        from dvc.api import DVCFileSystem

        place = scratch / self.commit / folder
        try:
            DVCFileSystem(".", rev=self.commit).get(folder.as_posix(), str(place), recursive=True)
        except Exception:  # whatever a cache or a remote may raise: without the data there are no pictures
            return None
        return place if place.is_dir() else None

    def _hash(self, folder: Path) -> str | None:
        outs = (out for stage in self.stages.values() for out in stage.get("outs") or [])
        return next((out.get("md5") for out in outs if out.get("path") == folder.as_posix()), None)

    def names(self, folder: Path) -> list[str]:
        """What lies in a folder."""
        if not self.commit:
            return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        listed = git.said("ls-tree", "-z", "--name-only", self.commit, f"{folder.as_posix()}/")
        return sorted(Path(name).name for name in listed.decode().split("\0") if name)

    @cached_property
    def params(self) -> dict[str, Any]:
        """What params.yaml holds, unchecked: another state of the code may know other keys."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        place = f"{paths.PARAMS} of {self.name}"
        try:
            content = YAML(typ="safe").load(self._text(paths.PARAMS))
        except YAMLError as error:
            what = str(error).splitlines()[0]
            raise PipelineError(f"{place}: not readable as YAML ({what}); fix: mend it there") from None
        if not isinstance(content, dict):
            raise PipelineError(f"{place}: not a mapping; fix: mend it there")
        return content

    @cached_property
    def stages(self) -> dict[str, Any]:
        """The stages of dvc.lock by name."""
        return lock.stages(self._text(paths.LOCK), f"{paths.LOCK} of {self.name}")

    def _text(self, path: Path) -> str:
        data = self.read(path)
        if data is None:
            raise PipelineError(f"{path}: {self.name} has no such file; fix: commit it there, or name another revision")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PipelineError(f"{path} of {self.name}: not UTF-8 ({error}); fix: mend it there") from None

    def metrics(self, folder: Path) -> dict[str, Any] | None:
        """The metrics.json of a report's folder; None where there is none.

        Raises:
            PipelineError: it is no JSON object.
        """
        data = self.read(folder / "metrics.json")
        if data is None:
            return None
        try:
            content = json.loads(data)
        except ValueError as error:
            raise PipelineError(
                f"{folder}/metrics.json of {self.name}: not JSON ({error}); fix: dvc repro there"
            ) from None
        if not isinstance(content, dict):
            raise PipelineError(f"{folder}/metrics.json of {self.name}: not an object; fix: dvc repro there")
        return content


def resolve(name: str) -> Revision:
    """The revision of a name: `workspace`, anything git knows, or a DVC experiment.

    Raises:
        ParamsError: no such revision.
        PipelineError: the project is no git repository.
    """
    if name == WORKSPACE:
        return Revision(name, "")
    place = git.said("rev-parse", "--git-dir").decode().strip()
    experiments = _experiments()
    commit = git.commit(name) or experiments.get(name)
    if not commit:
        shallow = Path(place, "shallow").exists()
        fix = (
            "this clone is shallow; fix: git fetch --unshallow" if shallow else did_you_mean(name, _known(experiments))
        )
        raise ParamsError(f"no revision {name!r}; {fix}")
    return Revision(name, commit)


def history(limit: int) -> list[Revision]:
    """The commits that lead to HEAD along first parents, the oldest first."""
    commits = git.said("log", "--first-parent", f"--max-count={limit}", "--format=%H").decode().split()
    return [Revision(commit[:7], commit) for commit in reversed(commits)]


def subject(revision: Revision) -> str:
    """The first line of a commit's message."""
    return git.said("log", "-1", "--format=%s", revision.commit).decode("utf-8", "replace").strip()


def _experiments() -> dict[str, str]:
    listed = git.said("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps/")
    lines = (line.split() for line in listed.decode().splitlines())
    return {reference.rsplit("/", 1)[1]: commit for reference, commit in lines if reference.count("/") >= 4}


def _known(experiments: Iterable[str]) -> list[str]:
    listed = git.said("for-each-ref", "--format=%(refname:short)", "refs/heads/", "refs/tags/", "refs/remotes/")
    return [*listed.decode().split(), *experiments, WORKSPACE]
