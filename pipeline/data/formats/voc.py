"""PASCAL VOC: one XML file per image, lists of images per split, and segmentation as palette PNGs.

Source: the VOC2012 development kit, sections 3 and 7 (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/). Maps
hold palette indices: 0 background, 255 the border that is not scored; in SegmentationObject, object i of the XML is i.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.colours import label_colours
from pipeline.data.formats import (
    WHOLE,
    Action,
    Fault,
    Places,
    Repeatable,
    Source,
    about,
    first_folder,
    image_files,
    is_inside,
    plain_info,
    shown,
)
from pipeline.data.formats.exporting import FileNames, check_maps, hidden, left_out, put
from pipeline.data.formats.xml_file import parse, text_of
from pipeline.data.images import decode_values
from pipeline.data.records import RawObject, Record
from pipeline.data.store import Store, decode_image
from pipeline.errors import PipelineError, did_you_mean
from pipeline.ops import masks as mask_ops
from pipeline.structures import IGNORE, SPLITS

if TYPE_CHECKING:
    from xml.etree import ElementTree

CORNERS = ("xmin", "ymin", "xmax", "ymax")
BACKGROUND = "background"


def layout(root: Path) -> dict[str, Places]:
    """VOC's folders, divided by the lists in ImageSets/Main where they are there; maps only where each folder is."""
    if not (root / "Annotations").is_dir():
        return {}
    common = {"annotations": "Annotations"}
    images = first_folder(root, "JPEGImages", "images", "Images")
    maps = {"semantic": "SegmentationClass", "instances": "SegmentationObject"}
    common |= {role: name for role, name in maps.items() if (root / name).is_dir()}
    common |= {"images": images} if images is not None else {}
    lists = {split: f"ImageSets/Main/{split}.txt" for split in SPLITS}
    divided = {split: common | {"image_set": name} for split, name in lists.items() if (root / name).is_file()}
    return divided or {WHOLE: common}


def read(
    root: Path,
    *,
    split: str,
    annotations: str | Path = "Annotations",
    images: str | Path = "JPEGImages",
    image_set: str | Path | None = None,
    semantic: str | Path | None = None,
    instances: str | Path | None = None,
    classes: Sequence[str] | None = None,
    one_based: bool = False,
) -> Source:
    """The images of one split.

    Args:
        root: the dataset's folder; the other places are relative to it.
        split: train, val or test.
        annotations: the folder of XML files, each named after its image.
        images: the folder of images.
        image_set: a text file that names the images, one at the start of each line; None: all of `images`.
        semantic: the folder of class maps (SegmentationClass); images without one have no map.
        instances: the folder of object maps (SegmentationObject), which give objects their masks.
        classes: names in the order of their indices; None: those that occur, sorted. Class i has the value i + 1 in
            class maps.
        one_based: whether pixels count from 1 and the last one belongs to the box, as in VOC's own files: then
            x1 - 1, y1 - 1, x2, y2 are the corners. Most tools that write VOC's layout count from 0.

    A `difficult` object becomes a crowd: found or not, it does not count.

    Raises:
        PipelineError: a folder or list is missing, or a class is written in two ways.
    """
    reader = _Reader(root, split, root / annotations, one_based)
    reader.images = image_files(root / images, root)
    reader.semantic = None if semantic is None else root / semantic
    reader.instances = None if instances is None else root / instances
    for folder in (reader.annotations, reader.semantic, reader.instances):
        if folder is not None and not folder.is_dir():
            raise PipelineError(f"{shown(folder, root)}: no such folder; fix: name the folder of annotations")
    if image_set is None:
        reader.ids = sorted({*reader.images, *(path.stem for path in reader.annotations.glob("*.xml"))})
    else:
        reader.ids = _listed(root / image_set, root)
    if classes is None:
        classes = reader.occurring()
    reader.labels = {name: index for index, name in enumerate(classes)}
    tasks = ["detection"]
    tasks += ["instance"] if instances is not None else []
    tasks += ["semantic"] if semantic is not None else []
    info = plain_info(tasks, classes)
    if semantic is not None:
        info.semantic_classes = [BACKGROUND, *classes]
        info.thing_of_semantic = [-1, *range(len(classes))]
    return Source(info, Repeatable(reader.records), len(reader.ids))


def _listed(path: Path, root: Path) -> list[str]:
    """The names at the start of the lines of an image set; a second column (-1, 0, 1) says of which class it is."""
    name = shown(path, root)
    try:
        # as bytes, for which only ASCII has spaces and line ends: names from macOS hold U+202F
        lines = [[field.decode("utf-8-sig") for field in line.split()] for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        raise PipelineError(f"{name}: no such list of images; fix: name one of ImageSets/Main") from None
    except UnicodeDecodeError:
        raise PipelineError(f"{name}: not UTF-8; fix: save the file as UTF-8") from None
    ids: dict[str, int] = {}
    for number, fields in enumerate(lines, start=1):
        if not fields:
            continue
        if not is_inside(fields[0]):
            raise PipelineError(f"{name}:{number}: leaves the folder of images ({fields[0]!r}); fix: write its name")
        if fields[0] in ids:
            raise PipelineError(f"{name}:{number}: line {ids[fields[0]]} names {fields[0]!r} too; fix: keep one")
        ids[fields[0]] = number
    if not ids:
        raise PipelineError(f"{name}: names no image; fix: write one name in each line")
    return list(ids)


class _Reader:
    """The folders of one split."""

    images: Mapping[str, Path]
    ids: Sequence[str]
    labels: Mapping[str, int]
    semantic: Path | None
    instances: Path | None

    def __init__(self, root: Path, split: str, annotations: Path, one_based: bool) -> None:
        self.root, self.split, self.annotations, self.one_based = root, split, annotations, one_based

    def occurring(self) -> list[str]:
        """The names of the classes that occur.

        Raises:
            PipelineError: two differ in capitals or inner spaces alone.
        """
        first: dict[str, tuple[str, str]] = {}
        names: set[str] = set()
        for image_id in self.ids:
            path = self.annotations / f"{image_id}.xml"
            try:
                objects = parse(path).findall("object")
            except (OSError, ValueError):
                continue  # told when its turn comes
            for name in filter(None, (text_of(element, "name") for element in objects)):
                known, where = first.setdefault("".join(name.casefold().split()), (name, shown(path, self.root)))
                if known != name:
                    raise PipelineError(
                        f"{shown(path, self.root)} name: {name!r} where {where} writes {known!r}; fix: write it in "
                        "one way, or list the classes in params.yaml"
                    )
                names.add(name)
        return sorted(names)

    def records(self) -> Iterator[Record | Fault]:
        for image_id in self.ids:
            path = self.annotations / f"{image_id}.xml"
            name = shown(path, self.root)
            if image_id not in self.images:
                what, fix = f"filename: no image {image_id!r} in the folder of images", "add it or remove this file"
                yield Fault("no image", self.split, name, None, what, fix, "dropped image")
                continue
            try:
                tree = parse(path)
            except FileNotFoundError:
                image = shown(self.images[image_id], self.root)
                fix = f"add {name} (without objects if it shows none) or leave the image out of the image set"
                yield Fault("no annotation", self.split, image, None, "has no XML file", fix, "dropped image")
                continue
            except (OSError, ValueError) as error:
                fix = "correct the file or write it anew"
                yield Fault("annotation file", self.split, name, None, str(error), fix, "dropped image")
                continue
            yield from about(image_id, self._record(image_id, name, tree))

    def _record(self, image_id: str, name: str, tree: ElementTree.Element) -> Iterator[Record | Fault]:
        image = self.images[image_id]
        size = None
        stated = text_of(tree, "filename")
        if stated is not None and not is_inside(stated):
            what, fix = f"filename: leaves the folder of images ({stated!r})", "write the image's own name"
            yield self._fault("file name", name, None, what, fix, "dropped image")
            return
        if stated is not None and stated != image.name and Path(stated).stem != Path(image_id).name:
            what = f"filename: {stated!r}, but the file is named after {image.name!r}"
            yield self._fault("file name", name, None, what, "give both one name", "kept")
        if tree.find("size") is not None:
            try:
                size = (int(_number(tree, "size/height")), int(_number(tree, "size/width")))
            except ValueError as error:
                yield self._fault("size", name, None, f"size {error}", "write the image's size or leave it out", "kept")
            if size == (0, 0):  # what some tools write for want of knowing
                size = None
        objects = []
        try:
            found = self._instances(image_id)
        except (OSError, PipelineError) as error:
            what = f"the object map of {image_id} is not readable: {error}"
            yield self._fault("object map", name, None, what, "draw it anew", "dropped image")
            return
        for index, element in enumerate(tree.findall("object")):
            try:
                item = self._object(element, index)
            except ValueError as error:
                yield self._fault("annotation", name, index, str(error), "correct or remove this object")
                continue
            if found is not None:
                mask = found == index + 1
                item.mask = mask
                if not mask.any():
                    what = f"object map: no pixel has the value {index + 1}"
                    yield self._fault("no mask", name, index, what, "draw it or remove this object")
                    continue
            objects.append(item)
        semantic = None if self.semantic is None else self.semantic / f"{image_id}.png"
        yield Record(
            split=self.split,
            image_id=image_id,
            file_name=shown(image, self.root),
            image=image,
            size=size,
            objects=objects,
            semantic=semantic if semantic is not None and semantic.exists() else None,
            annotation=name,
        )

    def _object(self, element: ElementTree.Element, index: int) -> RawObject:
        label = text_of(element, "name")
        if label is None:
            raise ValueError("name: missing")
        if label not in self.labels:
            raise ValueError(f"name: {label!r} is not among the classes; {did_you_mean(label, self.labels)}")
        boxes = element.findall("bndbox")
        if len(boxes) != 1:
            raise ValueError(f"bndbox: {'missing' if not boxes else 'stands there more than once'}")
        try:
            x1, y1, x2, y2 = (_number(boxes[0], corner) for corner in CORNERS)
        except ValueError as error:
            raise ValueError(f"bndbox {error}") from None
        if self.one_based:
            x1, y1 = x1 - 1, y1 - 1
        difficult = text_of(element, "difficult") or "0"
        if difficult not in ("0", "1"):
            raise ValueError(f"difficult: should be 0 or 1 ({difficult!r})")
        return RawObject(label=self.labels[label], bbox=[x1, y1, x2, y2], iscrowd=difficult == "1", index=index)

    def _instances(self, image_id: str) -> np.ndarray | None:
        """The [H, W] object map of an image, or None without one."""
        path = self.instances / f"{image_id}.png" if self.instances is not None else None
        if path is None or not path.exists():
            return None
        return decode_values(path.read_bytes())

    def _fault(
        self, kind: str, name: str, index: int | None, what: str, fix: str, action: Action = "dropped annotation"
    ) -> Fault:
        return Fault(kind, self.split, name, index, what, fix, action)


def _number(element: ElementTree.Element, path: str) -> float:
    """The finite number at a path; ValueError tells the key and what stands there."""
    text = text_of(element, path)
    key = path.rpartition("/")[2]
    if text is None:
        raise ValueError(f"{key}: missing")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"{key}: not a number ({text!r})")
    return value


def write(folder: Path, store: Store) -> list[str]:
    """Writes VOC's folders: `Annotations`, `JPEGImages`, `ImageSets/Main/<split>.txt` and, with masks, segmentation.

    Boxes come back to float32, counted from 0 with the last pixel not in the box (`one_based: false`); crowds are
    `difficult`. In SegmentationObject each pixel can belong to one object: a smaller one covers a larger one, so masks
    that do not overlap come back exactly. SegmentationClass holds class i as i + 1 and what is no thing as background.
    Image bytes are those of the store, so an EXIF orientation stays in them; boxes are in pixels of the image as shown.

    Returns:
        In words, what the format has no place for.

    Raises:
        PipelineError: more classes, or an image with more objects with masks, than the 254 that a map has values for.
    """
    from xml.etree import ElementTree

    info, names = store.info, FileNames()
    has_maps = "instance" in info.tasks or "semantic" in info.tasks
    if has_maps:
        check_maps(store, len(info.classes))
    num_hidden = 0
    for split_name in info.counts:
        split, listed = store.split(split_name), []
        for index in range(len(split)):
            row = split.row(index)
            name = names.of(row)
            stem = Path(name).stem
            listed.append(stem)
            put(folder / "JPEGImages" / name, row["image"])
            tree = _tree(row, name, info.classes, info.channels, has_maps)
            ElementTree.indent(tree, "\t")
            put(folder / "Annotations" / f"{stem}.xml", ElementTree.tostring(tree, "utf-8") + b"\n")
            if has_maps:
                semantic, instances = _maps(row, info.thing_of_semantic)
                put(folder / "SegmentationClass" / f"{stem}.png", _palette_png(semantic))
                if "instance" in info.tasks:
                    put(folder / "SegmentationObject" / f"{stem}.png", _palette_png(instances))
                    num_hidden += hidden(instances, row.get("objects") or [])
        put(folder / "ImageSets" / "Main" / f"{split_name}.txt", "".join(f"{stem}\n" for stem in listed).encode())
    stuff = ["stuff, which became background"] if -1 in info.thing_of_semantic[1:] else []
    covered = [f"masks that others cover ({num_hidden})"] if num_hidden else []
    return left_out(store, "objects", "masks", "semantic") + stuff + covered


def _tree(
    row: Mapping[str, Any], name: str, classes: Sequence[str], channels: int, has_maps: bool
) -> ElementTree.Element:
    """The XML of one image."""
    from xml.etree.ElementTree import Element, SubElement

    def put_text(parent: ElementTree.Element, tag: str, text: str | int) -> None:
        SubElement(parent, tag).text = str(text)

    root = Element("annotation")
    put_text(root, "folder", "JPEGImages")
    put_text(root, "filename", name)
    size = SubElement(root, "size")
    for tag, value in (("width", row["width"]), ("height", row["height"]), ("depth", channels)):
        put_text(size, tag, value)
    put_text(root, "segmented", int(has_maps))
    for obj in row.get("objects") or []:
        element = SubElement(root, "object")
        put_text(element, "name", classes[obj["label"]])
        put_text(element, "difficult", int(obj["iscrowd"]))
        box = SubElement(element, "bndbox")
        for tag, corner in zip(CORNERS, obj["bbox"], strict=True):
            put_text(box, tag, np.format_float_positional(np.float32(corner), trim="-"))
    return root


def _maps(row: Mapping[str, Any], thing_of_semantic: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The class map and the object map of a row, both [H, W] uint8."""
    height, width = row["height"], row["width"]
    semantic, instances = np.zeros((2, height, width), np.uint8)
    objects = list(enumerate(row.get("objects") or [], start=1))
    if len(objects) >= IGNORE:
        raise PipelineError(f"{row['file_name']}: {len(objects)} objects, VOC's maps hold 254; fix: export as coco")
    for number, obj in sorted(objects, key=lambda item: -item[1]["area"]):
        if obj["mask"] is not None:
            mask = mask_ops.decode(obj["mask"], height, width)
            semantic[mask], instances[mask] = obj["label"] + 1, number
    if row.get("semantic") is not None:
        value_of = np.full(256, IGNORE, np.uint8)
        value_of[: len(thing_of_semantic)] = np.array(thing_of_semantic) + 1
        semantic = value_of[decode_image(row["semantic"], 1)[..., 0]]
    return semantic, instances


def _palette_png(values: np.ndarray) -> bytes:
    """PNG bytes of a [H, W] uint8 map in VOC's colours."""
    import io

    from PIL import Image

    image = Image.fromarray(values)
    image.putpalette(bytes.fromhex("".join(label_colours(256)).replace("#", "")))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
