"""What ingest found wrong or worth knowing, in a file beside the data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline.paths import write_json

FILE = "findings.json"
Action = Literal["kept", "dropped annotation", "dropped image"]


@dataclass(frozen=True)
class Finding:
    """What is wrong or worth knowing of an image or an annotation.

    Attributes:
        kind: the sort, for counting, such as "zero-area box".
        split: train, val or test.
        file: the image's name in its source.
        index: of the annotation in its source; None: the image as a whole.
        what: what was found, with the value.
        action: what was done.
    """

    kind: str
    split: str
    file: str
    index: int | str | None
    what: str
    action: Action


def write(folder: Path, findings: Sequence[Finding]) -> None:
    """Writes the findings of a store."""
    write_json(folder / FILE, [asdict(finding) for finding in findings])


def read(folder: Path) -> list[Finding] | None:
    """The findings of a store, or None where it was not ingested."""
    path = folder / FILE
    if not path.is_file():
        return None
    return [Finding(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def skipped(folder: Path) -> dict[str, int] | None:
    """How many annotations and images ingest left out of a store, or None where it was not ingested."""
    found = read(folder)
    if found is None:
        return None
    actions = Counter(finding.action for finding in found)
    return {"annotations": actions["dropped annotation"], "images": actions["dropped image"]}
