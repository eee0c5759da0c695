"""Labelled images that a source publishes as plain arrays of bytes in large files; each is encoded once, as PNG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.data import splits
from pipeline.data.ingest import OnError, ingest
from pipeline.data.pool import ordered_map
from pipeline.data.records import Record
from pipeline.data.store import encode_png
from pipeline.errors import PipelineError
from pipeline.structures import DatasetInfo


@dataclass
class Part:
    """The images of one official split.

    Attributes:
        name: of the split in the source, for ids and file names.
        images: [N, H, W, C] uint8, in memory or memory-mapped.
        labels: [N] integers, class indices.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray


class _Item(NamedTuple):
    split: str
    image_id: str
    pixels: np.ndarray
    label: int


def write(
    folder: Path, info: DatasetInfo, *, train: Part, test: Part, val: float, seed: int, on_error: OnError
) -> None:
    """Writes the store; val is a share of each class of the official training images, dealt out by the seed.

    Raises:
        PipelineError: the numbers of images and labels differ, or see `ingest`.
    """
    for part in (train, test):
        if len(part.images) != len(part.labels):
            raise PipelineError(
                f"{info.name}: {len(part.images)} images and {len(part.labels)} labels in {part.name!r}; "
                "fix: delete both files from the cache and run again"
            )
    ids = [_image_id(train, index) for index in range(len(train.images))]
    dealt = splits.assign(ids, shares={"train": 1 - val, "val": val}, seed=seed, labels=train.labels.tolist())
    items = _items(train, dealt, test)
    ingest(folder, info, ordered_map(_record, items), on_error=on_error, num_records=len(ids) + len(test.images))


def _image_id(part: Part, index: int) -> str:
    return f"{part.name}_{index:06d}"


def _items(train: Part, dealt: list[str], test: Part) -> Iterator[_Item]:
    for part, names in ((train, dealt), (test, ["test"] * len(test.images))):
        for index, (name, label) in enumerate(zip(names, part.labels, strict=True)):
            yield _Item(name, _image_id(part, index), np.asarray(part.images[index]), int(label))


def _record(item: _Item) -> Record:
    return Record(item.split, item.image_id, f"{item.image_id}.png", encode_png(item.pixels), label=item.label)


def read_rows(path: Path, row_bytes: int) -> np.ndarray:
    """[N, row_bytes] uint8, memory-mapped, of a file that is nothing but rows of so many bytes.

    Raises:
        PipelineError: its size is not a whole number of rows.
    """
    size = path.stat().st_size
    if size == 0 or size % row_bytes:
        raise PipelineError(
            f"{path}: {size} bytes are not a whole number of rows of {row_bytes}; "
            "fix: delete its folder from the cache and run again"
        )
    return np.memmap(path, np.uint8, "r", shape=(size // row_bytes, row_bytes))
