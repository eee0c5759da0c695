"""What the releases of PASCAL VOC share: their 20 classes, layout, and the two kinds of truth they carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.data import instance_maps, splits
from pipeline.data.colours import label_colours
from pipeline.data.download import Asset
from pipeline.data.formats import Fault, voc
from pipeline.data.ingest import OnError, ingest
from pipeline.data.originals import Original, checksums, original, read_map
from pipeline.data.pool import ordered_map
from pipeline.data.records import Record
from pipeline.structures import IGNORE, DatasetInfo

Truth = Literal["boxes", "segmentation"]

CLASSES = (  # noqa: SIM905  # a list would take a line for each
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
    "sheep sofa train tvmonitor"
).split()
LICENCE = "images: Flickr's terms of use; no licence is stated for the annotations"


class Part(NamedTuple):
    """An official image set and the archive that holds it.

    Attributes:
        asset: the archive.
        image_set: train, val or test as the release calls it.
        shares: of the splits here that its images are dealt to.
    """

    asset: Asset
    image_set: str
    shares: dict[str, float]


@dataclass(frozen=True)
class Release:
    """A year of the challenge; `attribution` and `source` are those of info.json."""

    year: int
    parts: tuple[Part, ...]
    attribution: str
    source: str


class Item(NamedTuple):
    """An image of the segmentation task, the folder of its release and its split."""

    root: Path
    name: str
    split: str


def write(folder: Path, release: Release, *, seed: int, on_error: OnError, truth: Truth) -> None:
    """Writes the store of one kind of truth of a release.

    Args:
        folder: where to; its name is the dataset's.
        release: what to read.
        seed: of the shares that a part is dealt out in.
        on_error: what a faulty image or annotation does; an object map that cannot be read is always an error.
        truth: `boxes` of the detection task (a `difficult` object is `iscrowd`), or `segmentation`: class and object
            maps of the fewer images that have them, whose borders (255) are not scored.
    """
    info = DatasetInfo(
        name=folder.name,
        tasks=["detection"],
        classes=list(CLASSES),
        channels=3,
        licence=LICENCE,
        attribution=release.attribution,
        source=release.source,
        checksum=checksums(part.asset for part in release.parts),
    )
    if truth == "boxes":
        info.colours = label_colours(21)[1:]
        records, num_records = _with_boxes(release, seed)
        ingest(folder, info, records, on_error=on_error, num_records=num_records)
        return
    info.tasks += ["instance", "semantic"]
    info.semantic_classes = [voc.BACKGROUND, *CLASSES]
    info.thing_of_semantic = [-1, *range(len(CLASSES))]
    info.colours = label_colours(21)
    items = [
        Item(files.root, name, split)
        for part in release.parts
        for files, names in [_image_set(part, "Segmentation", release.year)]
        for name, split in zip(names, _dealt(part, names, seed), strict=True)
    ]
    values = {value: value for value in range(21)}
    ingest(
        folder,
        info,
        ordered_map(_segmented, items, name=lambda item: item.name),
        on_error=on_error,
        semantic_values=values,
        num_records=len(items),
    )


def _image_set(part: Part, task: str, year: int) -> tuple[Original, list[str]]:
    """The folder of the release in a part's archive and the names of the part's images."""
    archive = original(part.asset)
    files = Original(archive.path(f"VOCdevkit/VOC{year}"), archive.name)
    return files, [line.split()[0] for _, line in files.lines(f"ImageSets/{task}/{part.image_set}.txt")]


def _dealt(part: Part, names: Sequence[str], seed: int) -> list[str]:
    return splits.assign(names, shares=part.shares, seed=seed)


def _with_boxes(release: Release, seed: int) -> tuple[Iterator[Record | Fault], int]:
    """Records of the detection task and how many they are."""
    read = []
    for part in release.parts:
        files, names = _image_set(part, "Main", release.year)
        source = voc.read(
            files.root,
            split=next(iter(part.shares)),
            image_set=f"ImageSets/Main/{part.image_set}.txt",
            classes=CLASSES,
            one_based=True,
        )
        read.append((source, dict(zip(names, _dealt(part, names, seed), strict=True))))

    def records() -> Iterator[Record | Fault]:
        for source, dealt in read:
            for item in source.records:
                if isinstance(item, Record):
                    item.split = dealt[item.image_id]
                yield item

    return records(), sum(source.num_records for source, _ in read)


def _segmented(item: Item) -> Record:
    """The objects of an object map; their classes are those of the class map under them.

    An object without a class there gets a class that does not exist, which `ingest` tells of.
    """
    classes = item.root / f"SegmentationClass/{item.name}.png"
    ids = read_map(item.root / f"SegmentationObject/{item.name}.png")
    values = instance_maps.majority(ids, read_map(classes), ignored=(0, IGNORE))
    labels = {number: values.get(number, 0) - 1 for number in np.unique(ids).tolist() if number not in (0, IGNORE)}
    return Record(
        split=item.split,
        image_id=item.name,
        file_name=f"JPEGImages/{item.name}.jpg",
        image=item.root / f"JPEGImages/{item.name}.jpg",
        size=ids.shape,  # type: ignore[arg-type]  # two-dimensional
        objects=instance_maps.objects_of(ids, labels),
        semantic=classes,
        annotation=f"SegmentationObject/{item.name}.png",
    )
