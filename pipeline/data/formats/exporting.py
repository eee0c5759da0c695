"""What all writers share: names of files (the source's where they can be, never two alike) and what is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.data.store import Store
from pipeline.errors import PipelineError
from pipeline.structures import IGNORE

# How encoded images start, and what their files may be called; the first is used where the name says otherwise.
SUFFIXES = {
    b"\x89PNG": (".png",),
    b"\xff\xd8\xff": (".jpg", ".jpeg"),
    b"GIF8": (".gif",),
    b"BM": (".bmp",),
    b"II*\0": (".tif", ".tiff"),
    b"MM\0*": (".tif", ".tiff"),
    b"RIFF": (".webp",),
}
TRUTH = {
    "label": "classes of whole images",
    "objects": "boxes",
    "masks": "instance masks",
    "keypoints": "keypoints",
    "semantic": "semantic maps",
    "panoptic": "panoptic maps",
    "captions": "captions",
    "target": "targets",
}
NOT_ANYWHERE = re.compile(r"[\0-\x20\x7f/\\:*?\"<>|]")  # what Windows, or a list with one name in each line, refuses
MAX_BYTES = 200  # of a stem; file systems take 255 of a name


class FileNames:
    """Names for the images of one export, by folder."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def of(self, row: dict[str, Any], folder: str = "") -> str:
        """The name of a row's image in `folder`: its own without folders, or with them where that is taken.

        No two names of a folder are alike without their suffixes, in capitals or small letters.
        """
        own = PurePosixPath(row["file_name"])
        data = bytes(row["image"][:4])
        suffixes = next((known for start, known in SUFFIXES.items() if data.startswith(start)), (own.suffix or ".png",))
        suffix = own.suffix if own.suffix.lower() in suffixes else suffixes[0]
        short, full = _plain(own.stem), _plain("_".join(part for part in own.with_suffix("").parts if part != "/"))
        number = 1
        for stem in (short, full):
            if self._take(folder, stem):
                return stem + suffix
        while not self._take(folder, f"{full}_{number}"):
            number += 1
        return f"{full}_{number}{suffix}"

    def _take(self, folder: str, stem: str) -> bool:
        key = (folder, stem.casefold())
        is_free = key not in self._taken
        self._taken.add(key)
        return is_free


def _plain(stem: str) -> str:
    """A stem that any system takes; what starts with a dot would be hidden, and with a dash an option."""
    stem = NOT_ANYWHERE.sub("_", stem).encode()[:MAX_BYTES].decode(errors="ignore")
    return f"_{stem}" if not stem or stem[0] in ".-" else stem


def check_maps(store: Store, num_classes: int) -> None:
    """Whether maps of 8 bits hold so many classes beside a background and what is not scored.

    Raises:
        PipelineError: they do not.
    """
    if num_classes >= IGNORE:
        raise PipelineError(
            f"{store.info.name}: {num_classes} classes, maps of 8 bits hold {IGNORE - 1}; fix: export as coco"
        )


def hidden(instances: np.ndarray, objects: Sequence[Mapping[str, Any]]) -> int:
    """How many masks of `objects` a map of their numbers, from 1, does not show, for others cover them."""
    return sum(obj["mask"] is not None for obj in objects) - int(np.count_nonzero(np.unique(instances)))


def put(path: Path, data: bytes) -> None:
    """Writes a file, and its folder before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def kinds_of(store: Store) -> set[str]:
    """Which kinds of `TRUTH` a store holds."""
    columns = {name for split in store.info.counts for name in store.split(split).table.column_names}
    of_objects = {"masks"} if "instance" in store.info.tasks else set()
    of_objects |= {"keypoints"} if store.info.keypoints else set()
    return (columns & set(TRUTH)) | of_objects


def left_out(store: Store, *kept: str) -> list[str]:
    """In words, what a store holds besides the kinds that a format keeps."""
    return [words for kind, words in TRUTH.items() if kind in kinds_of(store) - set(kept)]
