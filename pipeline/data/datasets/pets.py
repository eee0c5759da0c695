"""Oxford-IIIT Pet: 7,349 photographs of 37 breeds of cats and dogs, with the outline of each animal.

The official trainval images are `train` and `val`, a share of each breed; the official test images are `test`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from pipeline.data import splits
from pipeline.data.colours import label_colours
from pipeline.data.download import Asset
from pipeline.data.formats import Fault, voc
from pipeline.data.formats.xml_file import parse, text_of
from pipeline.data.ingest import OnError, ingest
from pipeline.data.originals import Original, checksums, original
from pipeline.data.records import RawObject, Record
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]
Truth = Literal["outlines", "heads"]

ASSETS = {
    "images": Asset(
        name="pets/images.tar.gz",
        urls=(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
            "https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
        ),
        checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
        size=791918971,
    ),
    "annotations": Asset(
        name="pets/annotations.tar.gz",
        urls=(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
            "https://thor.robots.ox.ac.uk/~vgg/data/pets/annotations.tar.gz",
        ),
        checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f",
        size=19173078,
    ),
}
LICENCE = "CC BY-SA 4.0; the copyright of the images remains with their owners"
ATTRIBUTION = "O. M. Parkhi, A. Vedaldi, A. Zisserman and C. V. Jawahar: Cats and Dogs. CVPR 2012"
SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/pets/"

# Class ids 1..37
CLASSES = (  # noqa: SIM905  # a list would take a line for each
    "Abyssinian, American Bulldog, American Pit Bull Terrier, Basset Hound, Beagle, Bengal, Birman, Bombay, Boxer, "
    "British Shorthair, Chihuahua, Egyptian Mau, English Cocker Spaniel, English Setter, German Shorthaired, "
    "Great Pyrenees, Havanese, Japanese Chin, Keeshond, Leonberger, Maine Coon, Miniature Pinscher, Newfoundland, "
    "Persian, Pomeranian, Pug, Ragdoll, Russian Blue, Saint Bernard, Samoyed, Scottish Terrier, Shiba Inu, Siamese, "
    "Sphynx, Staffordshire Bull Terrier, Wheaten Terrier, Yorkshire Terrier"
).split(", ")
SPECIES = ("cat", "dog")  # what the boxes of heads are called
FOREGROUND, BACKGROUND = 1, 2  # the values of the trimaps; 3 is the border, "not classified"


class Item(NamedTuple):
    """A line of trainval.txt or test.txt."""

    name: str
    label: int
    annotation: str


def prepare(
    folder: Path, *, seed: int, on_error: OnError = "fail", truth: Truth = "outlines", val: Share = 0.1
) -> None:
    """Writes the store: the breed of each image and one more kind of truth.

    Outlines are semantic maps, whose border ("not classified") is not scored. The box of the head is published of
    most trainval images and of no test image: `heads` are the trainval images that have one, dealt out by breed to
    all three splits. A head's class is the breed.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split.
        on_error: what a faulty image or annotation does.
        truth: `outlines` or `heads`.
        val: share of each breed's trainval images that are the val split; with `heads` another such share is test.
    """
    shares = {"train": 1 - val, "val": val}
    if truth == "heads":
        shares = {"train": 1 - 2 * val, "val": val, "test": val}
        if shares["train"] <= 0:
            raise ParamsError(
                f"params.yaml datasets.{folder.name}.options: val leaves no image for train, as test is as large "
                f"({val}); fix: a share below 0.5"
            )
    images, annotations = original(ASSETS["images"]), original(ASSETS["annotations"])
    trainval = _items(annotations, "annotations/trainval.txt")
    if truth == "heads":
        trainval = [item for item in trainval if _head_file(annotations, item).exists()]
    names, labels = [item.name for item in trainval], [item.label for item in trainval]
    items = list(zip(trainval, splits.assign(names, shares=shares, seed=seed, labels=labels), strict=True))
    if truth == "outlines":
        items += [(item, "test") for item in _items(annotations, "annotations/test.txt")]
    info = DatasetInfo(
        name=folder.name,
        tasks=["classification", "detection" if truth == "heads" else "semantic"],
        classes=list(CLASSES),
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums(ASSETS.values()),
    )
    if truth == "outlines":
        info.semantic_classes = ["background", "pet"]
        info.thing_of_semantic = [-1, -1]  # a pet of any of the classes
        info.colours = label_colours(2)
    ingest(
        folder,
        info,
        _records(images, annotations, items, truth),
        on_error=on_error,
        semantic_values={BACKGROUND: 0, FOREGROUND: 1},
        num_records=len(items),
    )


def _head_file(annotations: Original, item: Item) -> Path:
    return annotations.root / f"annotations/xmls/{item.name}.xml"


def _items(annotations: Original, member: str) -> list[Item]:
    items = []
    for number, line in annotations.lines(member):
        where = f"{member}:{number}"
        match line.split():
            case [name, class_id, _, _] if class_id.isdigit():
                if not 1 <= int(class_id) <= len(CLASSES):
                    raise PipelineError(
                        f"{where}: unknown class {class_id} of {name}; fix: supply {annotations.name} anew"
                    )
                items.append(Item(name, int(class_id) - 1, where))
            case _:
                raise PipelineError(
                    f"{where}: not `image class species breed` ({line[:60]!r}); fix: supply {annotations.name} anew"
                )
    return items


def _records(
    images: Original, annotations: Original, items: list[tuple[Item, str]], truth: Truth
) -> Iterator[Record | Fault]:
    for item, split in items:
        record = Record(
            split=split,
            image_id=item.name,
            file_name=f"images/{item.name}.jpg",
            image=images.root / f"images/{item.name}.jpg",
            label=item.label,
            annotation=item.annotation,
        )
        if truth == "outlines":
            record.semantic = annotations.root / f"annotations/trimaps/{item.name}.png"
        else:
            record.annotation = f"annotations/xmls/{item.name}.xml"
            try:
                record.objects = _heads(_head_file(annotations, item), item.label)
            except ValueError as error:
                fix = f"supply {annotations.name} anew"
                yield Fault("annotation file", split, record.annotation, None, str(error), fix, "dropped image")
                continue
        yield record


def _heads(path: Path, label: int) -> list[RawObject]:
    """The boxes of heads in a file of PASCAL VOC's layout, where the first pixel is 1 and the last one is inside.

    Raises:
        ValueError: not such a file; tells what is wrong.
    """
    heads = []
    for index, element in enumerate(parse(path).findall("object")):
        name = text_of(element, "name")
        if name not in SPECIES:
            raise ValueError(f"name: unknown class {name!r}; {did_you_mean(str(name), SPECIES)}")
        corners = []
        for corner in voc.CORNERS:
            text = text_of(element, f"bndbox/{corner}")
            if text is None:
                raise ValueError(f"bndbox {corner}: missing (object {index})")
            corners.append(float(text))
        x1, y1, x2, y2 = corners
        heads.append(RawObject(label=label, bbox=[x1 - 1, y1 - 1, x2, y2], index=index))
    return heads
