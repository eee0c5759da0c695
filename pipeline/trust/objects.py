"""Hashes by DVC's rules: of a file its md5, of a folder that of the sorted list of its files.

DVC trusts what is read-only in its cache and what its database of file times knows; nothing here does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pipeline.machine import cores

CHUNK = 2**20


class Cached(NamedTuple):
    """A file of DVC's cache, and the hash that its name says."""

    path: Path
    md5: str


def cached(cache: Path) -> Iterator[Cached]:
    """All objects of a cache, `files/md5` of it; what DVC was killed in writing has other names and is no object."""
    for folder in sorted(cache.glob("[0-9a-f][0-9a-f]")):
        for path in sorted(folder.iterdir()):
            md5 = folder.name + path.name
            if len(md5.removesuffix(".dir")) == 32 and path.is_file():
                yield Cached(path, md5)


def place(cache: Path, md5: str) -> Path:
    """Where a cache keeps an object."""
    return cache / md5[:2] / md5[2:]


def md5_of(path: Path, count: Callable[[int], None] = lambda _: None) -> str | None:
    """Of a file's bytes, or None where they cannot be read.

    Args:
        path: the file.
        count: told how many bytes were read, at each piece.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                count(len(chunk))
    except OSError:
        return None
    return digest.hexdigest()


def hashes(files: Iterable[Path], count: Callable[[int], None]) -> dict[Path, str | None]:
    """`md5_of` each file, on all cores; links to one content are read once."""
    by_content: dict[tuple[int, int], list[Path]] = {}
    missing: dict[Path, str | None] = {}
    for path in dict.fromkeys(files):
        try:
            status = path.stat()
        except OSError:
            missing[path] = None
        else:
            by_content.setdefault((status.st_dev, status.st_ino), []).append(path)
    with ThreadPoolExecutor(cores()) as pool:  # md5 frees the interpreter's lock
        found = pool.map(lambda some: md5_of(some[0], count), by_content.values())
        return missing | {path: md5 for some, md5 in zip(by_content.values(), found, strict=True) for path in some}


def folder_md5(files: Mapping[str, str]) -> str:
    """The hash of a folder.

    Args:
        files: the md5 of each by its path in the folder, with forward slashes.
    """
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def listed(manifest: Path) -> dict[str, str] | None:
    """The md5 of each file of a folder, from the folder's object in the cache; None where it is none."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        return {str(entry["relpath"]): str(entry["md5"]) for entry in content}
    except (OSError, ValueError, KeyError, TypeError):
        return None
