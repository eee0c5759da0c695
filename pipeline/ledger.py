"""The ledger: what each command cost, one JSON line each; outside git and DVC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import paths

COMMAND = "python -m pipeline "
"""How the command of a stage in dvc.yaml begins."""


def verb_and_name(command: str) -> tuple[str | None, str | None]:
    """The verb and the entry of a stage's command, or None where it is none of ours."""
    if not command.startswith(COMMAND):
        return None, None
    verb, _, name = command.removeprefix(COMMAND).strip().partition(" ")
    return verb, name or None


def key(verb: str, name: str | None) -> str:
    """A command and its entry as one word, such as `train@unet_scenes`."""
    return f"{verb}@{name}" if name else verb


class Line(NamedTuple):
    """One command that was run to its end.

    Attributes:
        command: the verb.
        name: its entry of params.yaml, or None.
        seconds: inside the stage, without the start of the interpreter.
        peak_memory_mb: of the process and of the workers that ran beside it; in old lines also of what started it.
        gpu_seconds: for which it had a GPU open.
        time: at its end, in seconds since 1970; 0 in old lines.
        commit: that was checked out, changed or not; None in old lines and outside git.
    """

    command: str
    name: str | None
    seconds: float
    peak_memory_mb: float
    gpu_seconds: float = 0.0
    time: float = 0.0
    commit: str | None = None

    @property
    def stage(self) -> str:
        """The `key` of the command and its entry."""
        return key(self.command, self.name)


def read(path: Path = paths.LEDGER) -> Iterator[Line]:
    """The lines, oldest first; one cut short by a kill is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            try:
                content: dict[str, Any] = json.loads(text)
                yield Line(**{key: content[key] for key in Line._fields if key in content})
            except (ValueError, TypeError):
                continue


def append(line: Line, path: Path = paths.LEDGER) -> None:
    """Adds a line in one write, so that stages side by side do not mix theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line._asdict()) + "\n")


def last(path: Path = paths.LEDGER) -> dict[str, Line]:
    """The last line of each stage."""
    return {line.stage: line for line in read(path)}
