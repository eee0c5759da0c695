"""Entries of dvc.lock, put in as text: DVC's own bytes in DVC's own order, without parsing the rest of the file.

DVC parses and writes the whole file for each stage, which is nine tenths of what it costs in a graph of a hundred.
Here an entry is written by DVC's own writer and takes its place among the others, which stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import paths

HEAD = "schema: '2.0'\nstages:\n"
BLOCK = re.compile(r"^  (?=[^ \n#-])", re.M)


def entries(path: Path) -> tuple[str, dict[str, str], str] | None:
    """The text before the stages, that of each stage, and that after them; None where it is laid out otherwise.

    Joined, they are the file.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text:
        return HEAD, {}, ""
    head, found, rest = text.partition("stages:\n")
    if not found or not (head.endswith("\n") or not head):
        return None
    end = re.search(r"^[^ \n]", rest, re.M)
    body, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    starts = [match.start() for match in BLOCK.finditer(body)]
    if not starts or starts[0] != 0:
        return None
    blocks = [body[start:stop] for start, stop in zip(starts, [*starts[1:], len(body)], strict=True)]
    named = {_name(block): block for block in blocks}
    return (head + found, named, tail) if len(named) == len(blocks) else None


def _name(block: str) -> str:
    return block.partition("\n")[0].strip().removesuffix(":").strip("'\"")


def put(path: Path, name: str, entry: dict[str, Any], order: Sequence[str]) -> bool:
    """Writes a stage's entry into dvc.lock, whole or not at all.

    Args:
        path: the lock file; a new one is begun where there is none.
        name: the stage in it.
        entry: its content, as DVC makes it.
        order: of the stages that the file did not hold before this repro; they stand at its end in this order, as a
            serial `dvc repro` leaves them. All others stay where they are.

    Returns:
        False where the file is laid out otherwise than DVC does it; nothing is written then.
    """
    from dvc.utils.serialize import dumps_yaml

    parts = entries(path)
    block = dumps_yaml({"stages": {name: entry}}).partition("\n")[2]
    if parts is None or _name(block) != name:
        return False
    head, blocks, tail = parts
    if name in blocks:
        blocks[name] = block
    else:
        ranks = {each: rank for rank, each in enumerate(order)}
        own = ranks.get(name, len(ranks))
        before = {each: text for each, text in blocks.items() if ranks.get(each, -1) < own}
        blocks = {**before, name: block, **blocks}
    written = head + "".join(blocks.values()) + tail
    if not path.is_file() or path.read_text(encoding="utf-8") != written:
        with paths.written_whole(path) as temporary:
            temporary.write_text(written, encoding="utf-8")
    return True
