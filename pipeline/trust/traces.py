"""What an output must not hold, for it differs from run to run or from machine to machine: times, paths, host names."""

from __future__ import annotations

import getpass
import json
import re
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

TEXT = (".json", ".csv", ".md", ".html", ".svg", ".txt", ".yaml")
WORDS = ("attribution", "caption", "captions", "class", "classes", "file", "file_name", "image_id", "licence", "source")
"""Keys whose texts are the user's: a photograph may be called after the time at which it was taken."""

CLOCK = re.compile(r"(?<!\d)(?:19|20)\d\d-[01]\d-[0-3]\d[T ][0-2]\d:[0-5]\d")
MOMENT = re.compile(r"(?:^|_)(?:time|date|timestamp|created|modified|duration|seconds|elapsed|hostname|host|user)$")
BEFORE = r"(?<![\w.:/>-])"  # no part of an address or of a relative path
PATH = re.compile(BEFORE + r"/(?:home|Users|root|tmp|var|private|mnt|workspace|builds|srv)/[\w.@+-]+")


def of(name: str, content: bytes) -> Iterator[str]:
    """What a file gives away, in words; of each kind the first.

    Args:
        name: of the file, whose end says what it holds.
        content: its bytes.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".png":
        yield from _of_png(content)
    if suffix not in TEXT:
        return
    text = content.decode("utf-8", "replace")
    for kind, found in (("an absolute path", _path_in(text)), ("this machine's name", _host_in(text))):
        if found:
            yield f"{kind} ({found})"
    if suffix == ".json":
        with suppress(ValueError, RecursionError):  # whoever reads the file tells of that
            yield from _of_json(json.loads(text))
    elif suffix == ".csv":
        header = text.partition("\n")[0].split(",")
        yield from (f"a time (column {key})" for key in header[:1000] if MOMENT.search(key))
    if suffix not in (".json", ".html") and (clock := CLOCK.search(text)):  # the page repeats the others, with names
        yield f"a time ({clock[0]})"


def _path_in(text: str) -> str:
    for folder in _folders():
        if folder in text and re.search(BEFORE + re.escape(folder), text):
            return folder
    match = PATH.search(text)
    return match[0] if match else ""


def _host_in(text: str) -> str:
    for name in _names():
        match = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
        if match:
            return match[0]
    return ""


@cache
def _folders() -> list[str]:
    """The folders of this machine that a path in an output would begin with."""
    found = [str(Path.cwd()), str(Path.cwd().resolve()), tempfile.gettempdir()]
    with suppress(RuntimeError):  # no home
        found.append(str(Path.home()))
    return [f"{folder}/" for folder in dict.fromkeys(found) if len(folder) > 3]


@cache
def _names() -> list[str]:
    """The name of this machine and of whoever uses it, unless it is a word that texts hold anyway."""
    names = [socket.gethostname(), socket.gethostname().partition(".")[0]]
    with suppress(OSError, KeyError):
        names.append(f"{getpass.getuser()}@")
    return [name for name in dict.fromkeys(names) if len(name) > 4 and name not in ("localhost", "runner", "docker")]


def _of_json(content: Any) -> Iterator[str]:
    pending: list[tuple[str, Any]] = [("", content)]
    told = False
    while pending and not told:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending.extend((str(inner), each) for inner, each in value.items())
        elif isinstance(value, list):
            pending.extend((key, each) for each in value)
        elif isinstance(value, str) and key not in WORDS and (match := CLOCK.search(value)):
            told = True
            yield f"a time ({match[0]})"
        elif isinstance(value, int | float) and not isinstance(value, bool) and MOMENT.search(key):
            told = True
            yield f"a time ({key}: {value})"


def _of_png(content: bytes) -> Iterator[str]:
    """Chunks of a PNG that say when or with what it was made."""
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind in (b"tIME", b"eXIf", b"tEXt", b"iTXt", b"zTXt"):
            yield f"metadata (a {kind.decode()} chunk)"
            return
        at += length + 12
