"""Imagenette: 13,394 photographs of ten classes of ImageNet that are easily told apart.

The official validation images, on which results are published, are `test`; the training images are `train` and `val`,
a share of each class.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from pipeline.data import splits
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError, ingest
from pipeline.data.originals import Original, checksums, original
from pipeline.data.records import Record
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]
Size = Literal["full", "320px", "160px"]

# Sizes and checksums as TensorFlow Datasets publishes them (url_checksums/imagenette.txt)
FILES = {
    "full": ("imagenette2", 1556914727, "de32de18a7d8df0114d5e2c3c14cafb9558e8f00441a73aa7953681ad02be49c"),
    "320px": ("imagenette2-320", 341553947, "5020a9130cea0348272823cb12d2db7e981c6f2afa3dce71ccd5b8013005c55e"),
    "160px": ("imagenette2-160", 98948031, "88daccb09b6fce93f45e6c09ddeb269cce705549e6bff322092a2a5a11489863"),
}
ASSETS = {
    key: Asset(
        name=f"imagenette/{name}.tgz",
        urls=(f"https://s3.amazonaws.com/fast-ai-imageclas/{name}.tgz",),
        checksum=f"sha256:{digest}",
        size=size,
    )
    for key, (name, size, digest) in FILES.items()
}
LICENCE = "Apache-2.0 for the selection; the images are from ImageNet, whose terms allow research and teaching"
ATTRIBUTION = "J. Howard: Imagenette; J. Deng et al.: ImageNet: A large-scale hierarchical image database. CVPR 2009"
SOURCE = "https://github.com/fastai/imagenette"
CLASSES = {  # WordNet's ids are the names of the folders
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


class Item(NamedTuple):
    """An image of one official split, train or val."""

    path: Path
    name: str
    label: int


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", val: Share = 0.1, size: Size = "160px") -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split into train and val.
        on_error: what a faulty image does.
        val: share of the official training images that are the val split.
        size: the shorter side of the images, or "full" for those of ImageNet.
    """
    files = original(ASSETS[size])
    train, test = (_items(files, f"{FILES[size][0]}/{part}") for part in ("train", "val"))
    dealt = splits.assign(
        [item.name for item in train],
        shares={"train": 1 - val, "val": val},
        seed=seed,
        labels=[item.label for item in train],
    )
    info = DatasetInfo(
        name=folder.name,
        tasks=["classification"],
        classes=list(CLASSES.values()),
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums([ASSETS[size]]),
    )
    items = [*zip(train, dealt, strict=True), *((item, "test") for item in test)]
    ingest(folder, info, _records(items), on_error=on_error, num_records=len(items))


def _items(files: Original, inner: str) -> list[Item]:
    part = inner.rpartition("/")[2]
    return [
        Item(path, f"{part}/{wordnet_id}/{path.name}", label)
        for label, wordnet_id in enumerate(CLASSES)
        for path in files.members(f"{inner}/{wordnet_id}", "*.JPEG")
    ]


def _records(items: list[tuple[Item, str]]) -> Iterator[Record]:
    for item, split in items:
        yield Record(split, item.name.removesuffix(".JPEG"), item.name, item.path, label=item.label)
