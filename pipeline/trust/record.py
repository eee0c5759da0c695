"""What dvc.lock says: each stage's outputs and dependencies with their hashes, and the params that it ran with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipeline import lock, paths
from pipeline.errors import PipelineError

MD5 = "md5"
DIR = ".dir"
"""The end of a folder's hash, which is that of its list of files."""


class Entry(NamedTuple):
    """A dependency or an output of a stage as dvc.lock has it.

    Attributes:
        stage: its address, such as `train@unet_scenes`.
        path: from the project on.
        md5: of the file, or of the folder's list of files with `.dir` behind it; empty where another hash was taken.
        size: in bytes.
    """

    stage: str
    path: str
    md5: str
    size: int

    @property
    def is_folder(self) -> bool:
        """By its hash."""
        return self.md5.endswith(DIR)


class Record(NamedTuple):
    """dvc.lock.

    Attributes:
        outs: of all stages.
        deps: of all stages.
        params: for each stage the values by dotted name, of params.yaml alone.
    """

    outs: list[Entry]
    deps: list[Entry]
    params: dict[str, dict[str, Any]]


def read(text: str, place: str) -> Record:
    """The content of a lock file.

    Args:
        text: of the file.
        place: how a message names it.

    Raises:
        PipelineError: it is no lock file, or an entry has no path.
    """
    found = Record([], [], {})
    for name, stage in lock.stages(text, place).items():
        found.outs.extend(_entries(name, stage.get("outs"), place))
        found.deps.extend(_entries(name, stage.get("deps"), place))
        params = stage.get("params") or {}
        found.params[name] = dict(params.get(str(paths.PARAMS)) or {}) if isinstance(params, dict) else {}
    return found


def _entries(stage: str, listed: Any, place: str) -> Iterator[Entry]:
    for entry in listed or []:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise PipelineError(f"{place} {stage}: an entry without a path ({entry!r}); fix: dvc repro {stage}")
        is_md5 = entry.get("hash") == MD5
        yield Entry(stage, entry["path"], str(entry.get("md5") or "") if is_md5 else "", int(entry.get("size") or 0))


def differences(recorded: Mapping[str, Any], params: Any) -> Iterator[tuple[str, Any, Any]]:
    """Dotted names whose value in params.yaml is another than the recorded one, with both; None: not there."""
    for name, value in recorded.items():
        now = params
        for key in name.split("."):
            now = now.get(key) if isinstance(now, dict) else None
        yield from _unequal(name, value, now)


def _unequal(name: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from _unequal(f"{name}.{key}", one.get(key), other.get(key))
    elif one != other or isinstance(one, bool) is not isinstance(other, bool):
        yield name, one, other
