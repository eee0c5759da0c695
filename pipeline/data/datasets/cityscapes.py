"""Cityscapes: 5,000 street scenes of 50 cities with fine labels of every pixel and instance.

The source wants a login, so its two archives are the user's to supply (`inputs`). The official test images have no
public truth: the official val cities are `test` here, and `val` is a share of the official train cities, whole ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from pipeline.data import instance_maps, splits
from pipeline.data.ingest import OnError, ingest
from pipeline.data.originals import Original, read_map, unpacked
from pipeline.data.pool import ordered_map
from pipeline.data.records import Record
from pipeline.data.store import encode_ids
from pipeline.errors import PipelineError
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]

ARCHIVES = {"leftImg8bit": "leftImg8bit_trainvaltest.zip", "gtFine": "gtFine_trainvaltest.zip"}
LICENCE = "Cityscapes licence: non-commercial use only, no redistribution (https://www.cityscapes-dataset.com/license/)"
ATTRIBUTION = (
    "M. Cordts, M. Omran, S. Ramos, T. Rehfeld, M. Enzweiler, R. Benenson, U. Franke, S. Roth and B. Schiele: "
    "The Cityscapes Dataset for Semantic Urban Scene Understanding. CVPR 2016"
)
SOURCE = "https://www.cityscapes-dataset.com"


class Class(NamedTuple):
    """A class that the benchmark scores; they stand in the order of their train ids.

    Attributes:
        name: the official one.
        label_id: its value in the label maps.
        colour: the official one.
        is_thing: whether its instances are told apart.
    """

    name: str
    label_id: int
    colour: str
    is_thing: bool = False


# cityscapesScripts, helpers/labels.py
CLASSES = (
    Class("road", 7, "#804080"),
    Class("sidewalk", 8, "#f423e8"),
    Class("building", 11, "#464646"),
    Class("wall", 12, "#66669c"),
    Class("fence", 13, "#be9999"),
    Class("pole", 17, "#999999"),
    Class("traffic light", 19, "#faaa1e"),
    Class("traffic sign", 20, "#dcdc00"),
    Class("vegetation", 21, "#6b8e23"),
    Class("terrain", 22, "#98fb98"),
    Class("sky", 23, "#4682b4"),
    Class("person", 24, "#dc143c", is_thing=True),
    Class("rider", 25, "#ff0000", is_thing=True),
    Class("car", 26, "#00008e", is_thing=True),
    Class("truck", 27, "#000046", is_thing=True),
    Class("bus", 28, "#003c64", is_thing=True),
    Class("train", 31, "#005064", is_thing=True),
    Class("motorcycle", 32, "#0000e6", is_thing=True),
    Class("bicycle", 33, "#770b20", is_thing=True),
)
TRAIN_IDS = {each.label_id: index for index, each in enumerate(CLASSES)}
THINGS = [each for each in CLASSES if each.is_thing]
THING_LABELS = {each.label_id: index for index, each in enumerate(THINGS)}
INSTANCES = 1000  # an instance's value is its class's label id times this, plus its number


class Item(NamedTuple):
    """One image and the files of its truth."""

    image: Path
    labels: Path
    instances: Path
    city: str
    split: str


def prepare(folder: Path, *, seed: int, inputs: str, on_error: OnError = "fail", val: Share = 0.1) -> None:
    """Writes the store: the 19 classes of the benchmark as semantic maps, the 8 things among them as objects too.

    A region that shows several things at once, such as a crowd or parked bicycles, is an object with `iscrowd`, and
    void in the panoptic map, where a segment is always one thing. Label ids without a train id are not scored.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split.
        inputs: a folder that holds leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, or the folders
            leftImg8bit and gtFine that these unpack to.
        on_error: what a faulty image or annotation does; a map of instances that cannot be read is always an error.
        val: share of the official train cities that are the val split.
    """
    images, truth = (_supplied(Path(inputs).expanduser(), name, folder.name) for name in ARCHIVES)
    items = _items(images, truth, seed, val)
    info = DatasetInfo(
        name=folder.name,
        tasks=["detection", "instance", "semantic", "panoptic"],
        classes=[each.name for each in THINGS],
        semantic_classes=[each.name for each in CLASSES],
        thing_of_semantic=[THING_LABELS.get(each.label_id, -1) for each in CLASSES],
        colours=[each.colour for each in CLASSES],
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
    )
    ingest(
        folder,
        info,
        ordered_map(_record, items, name=lambda item: item.image.name),
        on_error=on_error,
        semantic_values=TRAIN_IDS,
        num_records=len(items),
    )


def _supplied(inputs: Path, name: str, dataset: str) -> Original:
    """One of the two archives or the folder it unpacks to."""
    if (inputs / name).is_dir():
        return Original(inputs, name)
    if (inputs / ARCHIVES[name]).is_file():
        return unpacked(inputs / ARCHIVES[name])
    raise PipelineError(
        f"params.yaml datasets.{dataset}.inputs: neither {ARCHIVES[name]} nor a folder {name} in {str(inputs)!r}; "
        f"fix: log in at {SOURCE}, download {' and '.join(ARCHIVES.values())} and put both there"
    )


def _items(images: Original, truth: Original, seed: int, val: float) -> list[Item]:
    found = {split: images.members(f"leftImg8bit/{split}", "*/*_leftImg8bit.png") for split in ("train", "val")}
    names = [image.name for image in found["train"]]
    cities = [image.parent.name for image in found["train"]]
    dealt = splits.assign(names, shares={"train": 1 - val, "val": val}, seed=seed, groups=cities)
    items = []
    for official, names_of_splits in (("train", dealt), ("val", ["test"] * len(found["val"]))):
        for image, split in zip(found[official], names_of_splits, strict=True):
            city = image.parent.name
            stem = f"gtFine/{official}/{city}/{image.name.removesuffix('_leftImg8bit.png')}_gtFine"
            labels, instances = truth.path(f"{stem}_labelIds.png"), truth.path(f"{stem}_instanceIds.png")
            items.append(Item(image, labels, instances, city, split))
    return items


def _record(item: Item) -> Record:
    ids = read_map(item.instances).astype(np.int64)
    present = np.unique(ids).tolist()
    class_of = {value: value if value < INSTANCES else value // INSTANCES for value in present}
    things = {value: THING_LABELS[class_of[value]] for value in present if class_of[value] in THING_LABELS}
    crowds = [value for value in things if value < INSTANCES]
    segments = [value for value in present if class_of[value] in TRAIN_IDS and value not in crowds]
    panoptic = np.zeros(ids.shape, np.int32)
    for number, value in enumerate(segments, 1):
        panoptic[ids == value] = number
    return Record(
        split=item.split,
        image_id=item.image.name.removesuffix("_leftImg8bit.png"),
        file_name=f"leftImg8bit/{item.image.parent.parent.name}/{item.city}/{item.image.name}",
        image=item.image,
        size=ids.shape,  # type: ignore[arg-type]  # two-dimensional
        objects=instance_maps.objects_of(ids, things, crowds),
        semantic=item.labels,
        panoptic=encode_ids(panoptic),
        segments=[(number, TRAIN_IDS[class_of[value]]) for number, value in enumerate(segments, 1)],
        group=item.city,
        annotation=f"gtFine/{item.city}/{item.instances.name}",
    )
