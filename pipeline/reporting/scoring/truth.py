"""The truth of objects in other tools' files, in the columns that the engine judges.

Boxes stay in float64 as the file has them, unclipped, so that figures equal those of the format's own tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from pipeline.data.annotations import Fault as WrongObject
from pipeline.data.annotations import Frame, object_row
from pipeline.data.formats import Fault, Source, coco, voc, yolo
from pipeline.data.formats.class_list import read_classes
from pipeline.data.formats.coco import Id
from pipeline.data.records import RawObject, Record
from pipeline.errors import ParamsError, PipelineError
from pipeline.metrics import overlaps
from pipeline.metrics.detection import ObjectColumns
from pipeline.reporting.scoring.results import Kind, ids_of

Format = Literal["coco", "voc", "yolo"]

ENDLESS = 10**9
"""Height and width of an image whose size nobody says, so that no box is outside."""


@dataclass
class Truth:
    """Objects to be found in I images.

    Attributes:
        name: of the file or folder, for messages.
        image_ids: I names, in the order in which pycocotools takes them.
        classes: K names.
        sizes: height and width of each image; None where nobody says.
        images: the file of each image; None without.
        columns: the M objects.
        positions: of each image by its id in the file.
        labels: class index by category id, class number or name.
        keypoints: names of the P keypoints.
        skeleton: pairs of them that are joined.
        notes: what was found odd and kept.
    """

    name: str
    image_ids: list[str]
    classes: list[str]
    sizes: list[tuple[int, int] | None]
    images: list[Path | None]
    columns: ObjectColumns
    positions: dict[Id, int]
    labels: dict[Any, int]
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[list[int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Box(msgspec.Struct):
    """The part of an annotation whose digits must not change on the way."""

    id: Id | None = None
    bbox: list[float] | None = None


def read_coco(path: Path, kind: Kind, images: Path | None) -> Truth:
    """The objects of an instances or person keypoints file.

    Raises:
        PipelineError: the file or one of its annotations is wrong.
    """
    root = path.parent
    role = {"keypoints" if kind == "keypoints" else "annotations": path.name}
    source = coco.read(root, split="test", images=images or root, **role)  # type: ignore[arg-type]
    file = coco.File(root, path.name)
    boxes: dict[tuple[Any, ...], list[float]] = {}
    for position, raw in enumerate(file.annotations):
        try:
            entry = msgspec.json.decode(raw, type=_Box)
        except msgspec.MsgspecError:
            continue  # told by the reader
        box = entry.bbox
        if box is not None and len(box) == 4:
            # by its corners too: the place of one without an id may be the id of another
            corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
            boxes[position if entry.id is None else entry.id, *corners] = box
    classes = source.info.classes
    labels: dict[Any, int] = {category.id: classes.index(category.name) for category in file.categories}
    truth = _gather(path.name, source, kind, boxes, has_images=images is not None)
    truth.positions = {image_id: truth.positions[name] for image_id, name in ids_of(path).items()}
    truth.labels = labels
    return truth


def read_voc(path: Path, kind: Kind, images: Path | None, one_based: bool) -> Truth:
    """The objects of a folder in VOC's layout, of its folder of XML files, or of an image set in it.

    Raises:
        ParamsError: a file that is no image set.
        PipelineError: a file is missing or wrong.
    """
    root, image_set = path, None
    if path.is_file():
        image_set = path.resolve()
        above = next(iter(image_set.parents[2:3]), None)  # ROOT/ImageSets/Main/val.txt
        if above is None or not (above / "Annotations").is_dir():
            raise ParamsError(
                f"--truth {path}: neither JSON nor an image set of VOC's, beside whose ImageSets are Annotations; "
                "fix: name the truth"
            )
        root = above
    folder = "Annotations" if (root / "Annotations").is_dir() else "."
    beside = "JPEGImages" if (root / "JPEGImages").is_dir() else "."
    source = voc.read(
        root,
        split="test",
        annotations=folder,
        images=images.resolve() if images is not None else beside,
        image_set=image_set,
        one_based=one_based,
    )
    truth = _gather(path.name, source, kind, {}, has_images=True)
    truth.labels = {name: index for index, name in enumerate(truth.classes)}
    return truth


def read_yolo(path: Path, kind: Kind, images: Path | None, classes: Path | None) -> Truth:
    """The objects of a folder of YOLO's text files.

    Raises:
        PipelineError: a file is missing or wrong, or no class is named.
    """
    if images is None:
        parts = list(path.resolve().parts)
        places = [index for index, part in enumerate(parts) if part == "labels"]
        images = Path(*parts[: places[-1]], "images", *parts[places[-1] + 1 :]) if places else path
    if classes is None:
        raise PipelineError(
            f"{path.name}: YOLO's rows name no classes; fix: add --classes data.yaml, or a list of names"
        )
    numbers = read_classes(classes, classes.name)
    source = yolo.read(path, split="test", images=images.resolve(), labels=path.resolve(), numbers=numbers, rows=None)
    truth = _gather(path.name, source, kind, {}, has_images=True)
    truth.labels = {number: index for index, number in enumerate(sorted(numbers))}
    return truth


def _gather(
    name: str, source: Source, kind: Kind, boxes: Mapping[tuple[Any, ...], list[float]], *, has_images: bool
) -> Truth:
    """All records in columns, images by id: by number where all ids are numbers."""
    records, notes = _records(source.records)
    records.sort(key=lambda record: record.image_id)
    if all(record.image_id.isdecimal() for record in records):
        records.sort(key=lambda record: int(record.image_id))
    num_points = len(source.info.keypoints) if kind == "keypoints" else 0
    sizes, rows, owners = [], [], []
    for index, record in enumerate(records):
        size = record.size
        if size is None and isinstance(record.image, Path):
            size = _size_of(record.image)
        sizes.append(size)
        for raw in record.objects or []:
            box = boxes.get((raw.index, *(raw.bbox or ())))
            rows.append(_row(raw, record, size, kind, box, len(source.info.classes), num_points))
            owners.append(index)
    columns = ObjectColumns(
        images=np.array(owners, np.int64),
        labels=np.array([row["label"] for row in rows], np.int64),
        boxes_xywh=np.array([row["xywh"] for row in rows], np.float64).reshape(-1, 4),
        areas=np.array([row["area"] for row in rows], np.float64),
        iscrowd=np.array([row["iscrowd"] for row in rows], bool),
        masks=overlaps.masks_of([row["mask"] for row in rows]) if kind == "masks" else None,
        keypoints=np.array([row["keypoints"] for row in rows], np.float64).reshape(-1, num_points, 3)
        if kind == "keypoints"
        else None,
    )
    return Truth(
        name=name,
        image_ids=[record.image_id for record in records],
        classes=list(source.info.classes),
        sizes=sizes,
        images=[record.image if has_images and isinstance(record.image, Path) else None for record in records],
        columns=columns,
        positions={record.image_id: index for index, record in enumerate(records)},
        labels={},
        keypoints=list(source.info.keypoints),
        skeleton=[list(pair) for pair in source.info.skeleton],
        notes=notes,
    )


def _records(items: Iterable[Record | Fault]) -> tuple[list[Record], list[str]]:
    records, notes = [], []
    for item in items:
        if isinstance(item, Record):
            records.append(item)
        elif item.action == "kept":
            notes.append(str(item))
        else:
            raise PipelineError(str(item))
    return records, notes


def _row(
    raw: RawObject,
    record: Record,
    size: tuple[int, int] | None,
    kind: Kind,
    box_xywh: list[float] | None,
    num_classes: int,
    num_points: int,
) -> dict[str, Any]:
    """One checked object; its box as the file has it."""
    place = f"{record.annotation or record.file_name}#{raw.index}"
    if kind == "masks" and raw.mask is None:
        raise PipelineError(f"{place} segmentation: missing; fix: add it, or score --task detection")
    if kind == "masks" and size is None:
        raise PipelineError(
            f"{record.annotation} images: no height and width of {record.file_name!r}; fix: add them, masks need them"
        )
    height, width = size or (ENDLESS, ENDLESS)
    bare = RawObject(
        label=raw.label,
        bbox=raw.bbox,
        # without a size a mask cannot be drawn, and boxes with an area do not need it
        mask=raw.mask if kind == "masks" or ((raw.bbox is None or raw.area is None) and size is not None) else None,
        area=raw.area,
        iscrowd=raw.iscrowd,
        keypoints=raw.keypoints if kind == "keypoints" else None,
        index=raw.index,
    )
    try:
        row = object_row(
            bare,
            Frame(height, width),
            num_classes=num_classes,
            num_keypoints=num_points,
            note=lambda kind, what: None,
        )
    except WrongObject as fault:
        raise PipelineError(f"{place} {fault.key}: {fault.what}; fix: correct or remove this annotation") from None
    x1, y1, x2, y2 = raw.bbox or row["bbox"]
    row["xywh"] = box_xywh or [x1, y1, x2 - x1, y2 - y1]
    if raw.area is None and bare.mask is None:
        row["area"] = row["xywh"][2] * row["xywh"][3]
    if kind == "masks":
        row["mask"] = {"size": [height, width], "counts": row["mask"]}
    return row


def _size_of(path: Path) -> tuple[int, int] | None:
    from pipeline.data import images

    try:
        return images.shown_size(images.opened(path.read_bytes()))
    except (OSError, PipelineError):
        return None
