"""COCO's JSON: instances, person keypoints, captions and panoptic segments of one split.

Source: https://cocodataset.org/#format-data. Boxes are [x, y, width, height] in pixels, keypoints and skeletons are
numbered from 1 in a skeleton, categories have ids of their own that need be neither dense nor ordered.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.data.formats import (
    SPELLINGS,
    Fault,
    Places,
    Repeatable,
    Source,
    about,
    first_folder,
    is_inside,
    plain_info,
    shown,
)
from pipeline.data.formats.json_file import decode, explain, top_level
from pipeline.data.records import RawObject, Record
from pipeline.errors import ParamsError, PipelineError, did_you_mean

Id = int | str
Index = dict[Id, "array[int]"]


class Image(msgspec.Struct):
    """An entry of `images`."""

    id: Id
    file_name: str
    height: int | None = None
    width: int | None = None


class Category(msgspec.Struct):
    """An entry of `categories`; the last three are of keypoints and panoptic files."""

    id: Id
    name: str
    keypoints: list[str] = []
    skeleton: list[tuple[int, int]] = []
    isthing: Literal[0, 1] = 1


class RunLength(msgspec.Struct):
    """A mask as runs of zeros and ones by columns, plain or compressed."""

    size: tuple[int, int]
    counts: list[int] | str


class Annotation(msgspec.Struct):
    """An entry of `annotations` of instances and keypoints; what is optional here pycocotools demands."""

    image_id: Id
    category_id: Id
    id: Id | None = None
    bbox: list[float] | None = None
    segmentation: list[list[float]] | RunLength | None = None
    area: float | None = None
    iscrowd: Literal[0, 1] = 0
    keypoints: list[float] | None = None


class Caption(msgspec.Struct):
    """An entry of `annotations` of captions."""

    image_id: Id
    caption: str
    id: Id | None = None


class Segment(msgspec.Struct):
    """An entry of `segments_info`."""

    id: int
    category_id: Id
    iscrowd: Literal[0, 1] = 0


class Panoptic(msgspec.Struct):
    """An entry of `annotations` of panoptic segments; `file_name` is that of the PNG."""

    image_id: Id
    file_name: str
    segments_info: list[Segment]


class _Of(msgspec.Struct):
    """What every annotation has: the image it is of and perhaps an id."""

    image_id: Id
    id: Id | None = None


class File:
    """One JSON file: its parts as text and, for each image, which annotations are of it.

    Raises:
        PipelineError: the file or its categories are wrong as a whole.
    """

    def __init__(self, root: Path, place: str | Path, *, has_categories: bool = True) -> None:
        path = root / place
        self.name = shown(path, root)
        required = ("images", "annotations", *(["categories"] if has_categories else []))
        content = top_level(path, self.name, required)
        self.images = self._list(content, "images", msgspec.Raw)
        self.annotations = self._list(content, "annotations", msgspec.Raw)
        self.categories: list[Category] = self._list(content, "categories", Category) if has_categories else []
        self.categories.sort(key=lambda category: (isinstance(category.id, str), category.id))
        for key in ("id", "name"):
            values = [getattr(category, key) for category in self.categories]
            for value in values:
                if values.count(value) > 1:
                    raise PipelineError(
                        f"{self.name} categories: two have the {key} {value!r}; fix: give each a {key} of its own"
                    )

    def _list(self, content: Mapping[str, msgspec.Raw], key: str, kind: type[Any]) -> list[Any]:
        try:
            # each entry is decoded and checked on its own, when its image's turn comes
            entries = msgspec.json.decode(content[key], type=list[msgspec.Raw])
            return entries if kind is msgspec.Raw else [decode(entry, kind) for entry in entries]
        except (ValueError, msgspec.MsgspecError) as error:
            message = explain(error) if isinstance(error, msgspec.MsgspecError) else str(error)
            raise PipelineError(f"{self.name} {key}: {message}; fix: correct it or export the file anew") from None

    def by_image(self, split: str, images: Mapping[Id, Image]) -> tuple[Index, list[Fault]]:
        """Positions of each image's annotations, and the faults that show without looking into them."""
        index: Index = {}
        faults: list[Fault] = []
        seen: dict[Id, int] = {}
        for position, raw in enumerate(self.annotations):
            try:
                entry = msgspec.json.decode(raw, type=_Of)
            except msgspec.MsgspecError:
                try:
                    decode(raw, _Of)
                except ValueError as error:
                    faults.append(self.fault("annotation", split, position, str(error)))
                continue
            number = position if entry.id is None else entry.id
            if entry.id is not None and seen.setdefault(entry.id, position) != position:
                what = f"id: annotation {seen[entry.id]} in the file has it too ({entry.id!r}, here at {position})"
                faults.append(self.fault("duplicate id", split, number, what, "number the annotations"))
            elif entry.image_id not in images:
                what = f"image_id: no such image ({entry.image_id!r}{_other_type(entry.image_id, images)})"
                fix = "add the image to `images` or remove the annotation"
                faults.append(self.fault("unknown image", split, number, what, fix))
            else:
                # a list would take 40 bytes for each
                index.setdefault(entry.image_id, array("I")).append(position)
        return index, faults

    def fault(
        self, kind: str, split: str, index: Id, what: str, fix: str = "correct or remove this annotation"
    ) -> Fault:
        """A fault of an annotation of this file."""
        return Fault(kind, split, self.name, index, what, fix)


def layout(root: Path) -> dict[str, Places]:
    """Where COCO's own files, this package's exports and Roboflow's keep the splits; empty where nothing is found.

    Raises:
        ParamsError: as `only_one`.
    """
    found: dict[str, Places] = {}
    beside = {"keypoints": "person_keypoints", "captions": "captions", "panoptic": "panoptic"}
    for split, spellings in SPELLINGS.items():
        exports = [name for name in spellings if (root / name / "_annotations.coco.json").is_file()]
        candidates = {f"{name}/_annotations.coco.json": (name,) for name in exports} | candidates_of(
            root, split, "instances"
        )
        chosen = only_one(root, split, candidates)
        if chosen is None:
            continue
        found[split] = chosen
        tag = Path(chosen["annotations"]).stem.removeprefix("instances_")
        names = {role: f"annotations/{name}_{tag}.json" for role, name in beside.items()}
        found[split] |= {role: name for role, name in names.items() if (root / name).is_file()}
        if "panoptic" in found[split]:
            found[split]["maps"] = f"annotations/panoptic_{tag}"
    return found


def candidates_of(root: Path, split: str, kind: str) -> dict[str, tuple[str, ...]]:
    """The JSON files of a kind that may be a split's, each with the folders where its images may be."""
    tags = {
        path.stem.removeprefix(f"{kind}_")
        for spelling in SPELLINGS[split]
        for path in root.glob(f"annotations/{kind}_{spelling}*.json")
    }
    return {f"annotations/{kind}_{tag}.json": (tag, f"images/{tag}") for tag in sorted(tags)}


def only_one(root: Path, split: str, candidates: Mapping[str, Sequence[str]]) -> Places | None:
    """The one JSON of a split and the folder of its images; None where there is no JSON.

    Raises:
        ParamsError: several JSON files may be meant, or none of the folders is there.
    """
    if len(candidates) > 1:
        raise ParamsError(f"{' and '.join(candidates)}: each may be meant by {split}; fix: write `splits`")
    for place, folders in candidates.items():
        images = first_folder(root, *folders)
        if images is None:
            raise ParamsError(f"{place}: no folder {' or '.join(folders)} of its images; fix: write `splits`")
        return {"annotations": place, "images": images}
    return None


def read(
    root: Path,
    *,
    split: str,
    images: str | Path,
    annotations: str | Path | None = None,
    keypoints: str | Path | None = None,
    captions: str | Path | None = None,
    panoptic: str | Path | None = None,
    maps: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> Source:
    """The images of one split with all that its files say of them; an image is a record if any file lists it.

    Args:
        root: the dataset's folder; the other places are relative to it (or absolute, then named by their last part).
        split: train, val or test.
        images: the folder that the file names are in.
        annotations: the instances file (boxes and masks; keypoints too if its annotations have them).
        keypoints: a person keypoints file, whose annotations are joined to those of the same id.
        captions: a captions file.
        panoptic: a panoptic file, with `maps`, the folder of its PNGs. Its crowds become void, for a segment of ours
            is one thing.
        classes: names in the order of their indices; None: all categories by id.

    Raises:
        PipelineError: a file as a whole is wrong: not JSON, without `images`, with categories that share an id.
    """
    named = {"annotations": annotations, "keypoints": keypoints, "captions": captions, "panoptic": panoptic}
    files = {
        role: File(root, place, has_categories=role != "captions") for role, place in named.items() if place is not None
    }
    if not files:
        raise PipelineError(f"{shown(root, root.parent)}: no annotation file is named; fix: name one")
    reader = _Reader(root, split, Path(images), files, classes)
    if maps is not None:
        reader.maps = root / maps
    return Source(reader.info(), Repeatable(reader.records), max(len(file.images) for file in files.values()))


class _Reader:
    """The files of one split and what joins them."""

    def __init__(
        self, root: Path, split: str, images: Path, files: dict[str, File], classes: Sequence[str] | None
    ) -> None:
        self.root, self.split, self.folder, self.files = root, split, root / images, files
        self.maps = root
        self.things = [file for role, file in files.items() if role in ("annotations", "keypoints")]
        self.categories = [category for file in self.things for category in file.categories]
        if not self.things and "panoptic" in files:
            self.categories = [category for category in files["panoptic"].categories if category.isthing]
        names = list(dict.fromkeys(category.name for category in self.categories))
        self.classes = names if classes is None else list(classes)
        self.labels = {name: index for index, name in enumerate(self.classes)}
        self.named = {category.id: category.name for category in self.categories}
        for category in self.categories:
            if self.named[category.id] != category.name:
                raise PipelineError(
                    f"{self.things[0].name} categories: {category.name!r} has the id {category.id!r} there, which is "
                    f"{self.named[category.id]!r} in {self.things[-1].name}; fix: number them alike in both"
                )
        with_points = [category for category in self.categories if category.keypoints]
        self.points = with_points[0].keypoints if with_points else []
        self.skeleton = [[a - 1, b - 1] for a, b in with_points[0].skeleton] if with_points else []
        for category in with_points:
            if category.keypoints != self.points:
                raise PipelineError(
                    f"{self.things[-1].name} categories: {with_points[0].name!r} and {category.name!r} have other "
                    "keypoints; fix: one dataset for each"
                )
        self.stuff = files["panoptic"].categories if "panoptic" in files else []
        self.semantic = {category.id: index for index, category in enumerate(self.stuff)}

    def info(self) -> Any:
        tasks = []
        if self.things:
            tasks = ["detection", *(["instance"] if self._has_masks() else [])]
        tasks += ["keypoints"] if self.points else []
        tasks += [role for role in ("captions", "panoptic") if role in self.files]
        info = plain_info(tasks, self.classes)
        info.keypoints, info.skeleton = self.points, self.skeleton
        info.semantic_classes = [category.name for category in self.stuff]
        info.thing_of_semantic = [
            self.labels.get(category.name, -1) if category.isthing else -1 for category in self.stuff
        ]
        return info

    def _has_masks(self) -> bool:
        """Whether the annotations have masks, of which the first that has any is taken as a sign."""
        empty = (b"[]", b"null", b"")
        for file in self.things:
            for raw in file.annotations:
                segmentation = _part(raw, "segmentation")
                if segmentation not in empty:
                    return True
        return False

    def records(self) -> Iterator[Record | Fault]:
        images = yield from self._images()
        owner = next(iter(self.files.values())).name
        indices: dict[str, Index] = {}
        for role, file in self.files.items():
            indices[role], faults = file.by_image(self.split, images)
            yield from faults
        for image in images.values():
            yield from about(str(image.id), self._record(image, indices, owner))

    def _images(self) -> Generator[Fault, None, dict[Id, Image]]:
        """Yields what is wrong with the entries of images, returns the others by id."""
        images: dict[Id, Image] = {}
        names: dict[str, Id] = {}
        for file in self.files.values():
            own: set[str] = set()  # as text, in which images are named later on
            for position, raw in enumerate(file.images):
                for item in self._image(file, position, raw, images, names, own):
                    if isinstance(item, Fault):
                        yield item
                    else:
                        images[item.id] = item
                        names[item.file_name] = item.id
        return images

    def _image(
        self, file: File, position: int, raw: msgspec.Raw, images: dict[Id, Image], names: dict[str, Id], own: set[str]
    ) -> Iterator[Image | Fault]:
        place = f"images[{position}]"
        action: Any = "dropped image"
        try:
            image = decode(raw, Image)
        except ValueError as error:
            yield Fault("image entry", self.split, file.name, place, str(error), "correct this entry", action)
            return
        known = images.get(image.id)
        if str(image.id) in own:
            what = f"id: another image of this file has it too ({image.id!r})"
            yield Fault("duplicate image id", self.split, file.name, place, what, "number the images", action)
        elif known is not None and known.file_name != image.file_name:
            what = f"file_name: {image.file_name!r} where another file says {known.file_name!r} for id {image.id!r}"
            yield Fault("image entry", self.split, file.name, place, what, "give files of one dataset", action)
        elif not is_inside(image.file_name):
            what = f"file_name: leaves the folder of images ({image.file_name!r})"
            fix = "write it relative to that folder, with forward slashes"
            yield Fault("file name", self.split, file.name, place, what, fix, action)
        elif known is None and image.file_name in names:
            what = f"file_name: image {names[image.file_name]!r} has it too ({image.file_name!r})"
            yield Fault("duplicate image", self.split, file.name, place, what, "list each image once", action)
        elif known is None:
            yield image
        own.add(str(image.id))

    def _record(self, image: Image, indices: dict[str, Index], owner: str) -> Iterator[Record | Fault]:
        size = (image.height, image.width) if image.height is not None and image.width is not None else None
        record = Record(
            split=self.split,
            image_id=str(image.id),
            file_name=image.file_name,
            image=self.folder / image.file_name,
            size=size,
            annotation=owner,
        )
        if self.things:
            objects: dict[Id | tuple[int], RawObject] = {}
            for role in ("annotations", "keypoints"):
                for position in indices.get(role, {}).get(image.id, ()):
                    item = self._object(self.files[role], position, objects)
                    if isinstance(item, Fault):
                        yield item
            record.objects = list(objects.values())
        if "captions" in self.files:
            record.captions = []
            for position in indices["captions"].get(image.id, ()):
                try:
                    record.captions.append(decode(self.files["captions"].annotations[position], Caption).caption)
                except ValueError as error:
                    yield self.files["captions"].fault("annotation", self.split, position, str(error))
        if "panoptic" in self.files:
            yield from self._segments(record, indices["panoptic"].get(image.id, ()))
        yield record

    def _object(self, file: File, position: int, objects: dict[Id | tuple[int], RawObject]) -> Fault | None:
        """Adds the annotation to `objects`, or its keypoints to the one of the same id that is there.

        The key of one without an id is its position, in brackets, for there may be an id of that number.
        """
        try:
            entry = decode(file.annotations[position], Annotation)
        except ValueError as error:
            number = _part(file.annotations[position], "id")
            index: Id = int(number) if number.isdigit() else position
            return file.fault("annotation", self.split, index, str(error))
        number_or_id = position if entry.id is None else entry.id
        what = self._wrong(entry)
        if what is None and entry.id is None and file is not self.things[0]:
            what = f"id: missing, by which it would be joined to an object of {self.things[0].name}"
        if what is not None:
            return file.fault("annotation", self.split, number_or_id, what)
        key: Id | tuple[int] = (position,) if entry.id is None else entry.id
        if key in objects and entry.keypoints is not None:
            objects[key].keypoints = entry.keypoints
            return None
        box = entry.bbox
        mask: Any = entry.segmentation or None
        if isinstance(mask, RunLength):
            mask = {"size": list(mask.size), "counts": mask.counts}
        objects[key] = RawObject(
            label=self.labels[self.named[entry.category_id]],
            bbox=None if box is None else [box[0], box[1], box[0] + box[2], box[1] + box[3]],
            mask=mask,
            area=entry.area,
            iscrowd=bool(entry.iscrowd),
            keypoints=entry.keypoints,
            index=number_or_id,
        )
        return None

    def _wrong(self, entry: Annotation) -> str | None:
        """What is wrong with an annotation whose values have the right types."""
        if entry.category_id not in self.named:
            hint = _other_type(entry.category_id, self.named)
            return f"category_id: no such category ({entry.category_id!r}{hint})"
        name = self.named[entry.category_id]
        if name not in self.labels:
            return f"category_id: {name!r} is not among the classes; {did_you_mean(name, self.labels)}"
        if entry.bbox is None and not entry.segmentation:
            return "bbox: missing, and no segmentation to take it from"
        if entry.bbox is not None and len(entry.bbox) != 4:
            return f"bbox: {len(entry.bbox)} numbers instead of 4 ({entry.bbox})"
        return None

    def _segments(self, record: Record, positions: Sequence[int]) -> Iterator[Fault]:
        file = self.files["panoptic"]
        if not positions:
            what, fix = f"annotations: none of image {record.file_name!r}", "add one or remove the image"
            yield file.fault("no panoptic map", self.split, record.image_id, what, fix)
        for order, position in enumerate(positions):
            index = f"annotations[{position}]"
            try:
                entry = decode(file.annotations[position], Panoptic)
            except ValueError as error:
                yield file.fault("annotation", self.split, index, str(error))
                continue
            unknown = [s.category_id for s in entry.segments_info if s.category_id not in self.semantic]
            ids = [segment.id for segment in entry.segments_info]
            if order:
                what = f"image_id: a second annotation of image {entry.image_id!r}"
            elif not is_inside(entry.file_name):
                what = f"file_name: leaves the folder of maps ({entry.file_name!r})"
            elif unknown:
                what = f"segments_info: no such category ({unknown[0]!r})"
            elif len(set(ids)) < len(ids):
                what = "segments_info: two segments share an id"
            else:
                record.panoptic = self.maps / entry.file_name
                record.void = [segment.id for segment in entry.segments_info if segment.iscrowd]
                record.segments = [
                    (segment.id, self.semantic[segment.category_id])
                    for segment in entry.segments_info
                    if not segment.iscrowd
                ]
                continue
            yield file.fault("annotation", self.split, index, what)


def _part(raw: msgspec.Raw, key: str) -> bytes:
    """The text of one value of an object, empty without it."""
    try:
        return bytes(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get(key, b""))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return b""


def _other_type(value: Id, known: Mapping[Id, Any]) -> str:
    """A hint where an id is text in one place and a number in another."""
    other: Id = str(value) if isinstance(value, int) else int(value) if value.isdigit() else value
    return f"; {other!r} is there, of another type" if other != value and other in known else ""
