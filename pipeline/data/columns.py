"""Rows of a table to records, by naming which column plays which part.

A column inside another one is named with a dot: `objects.bbox` is `bbox` of each of the row's `objects`, whether those
are a list of structs or a struct of lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, cast

from pipeline.data import splits
from pipeline.data.formats import Fault, is_inside
from pipeline.data.images import ImageError, opened, shown_size
from pipeline.data.ingest import OnError, ingest
from pipeline.data.records import Encoded, RawObject, Record
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.structures import DatasetInfo

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]

ROLES = {
    "image": "encoded bytes, a struct of `bytes` and `path`, or a file's name",
    "id": "unique text or number; without it split and position",
    "file_name": "the image's name in messages and on export",
    "label": "class index or name",
    "bbox": "four numbers for each object, as `box_format` says",
    "category": "class index or name of each object",
    "mask": "polygons or COCO's run-length code of each object",
    "area": "of each object, in pixels",
    "iscrowd": "of each object",
    "semantic": "label map, encoded",
    "captions": "a sentence, or several",
    "target": "a number to regress",
    "group": "what must stay in one split",
    "split": "train, val or test",
}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
TASKS = {  # which kind of truth a role brings
    "label": "classification",
    "bbox": "detection",
    "mask": "instance",
    "semantic": "semantic",
    "captions": "captions",
    "target": "regression",
}

MAX_CLASSES = 2**20  # that are named by their numbers alone; ids of other things would fill the memory with names

OBJECT_ROLES = ("bbox", "mask", "category", "area", "iscrowd")
OPTIONAL_ROLES = ("area", "iscrowd")  # of which a row may have none

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and its values."""


@dataclass(frozen=True)
class Part:
    """Rows that share a split.

    Attributes:
        name: what the source calls them; the images' ids begin with it.
        split: train, val or test.
        read: the rows with only these outermost columns, in an order of their own that never changes.
        num_rows: how many, or None if only reading tells.
        root: the folder that file names in the image column start from, or None where there is none.
    """

    name: str
    split: str
    read: Callable[[list[str]], Iterator[Row]]
    num_rows: int | None = None
    root: Path | None = None


@dataclass(frozen=True)
class Table:
    """A source of rows.

    Attributes:
        parts: all of them.
        features: as Hugging Face writes the types of columns, for the names of classes; may be empty.
        columns: names of the outermost columns.
    """

    parts: list[Part]
    features: Mapping[str, Any]
    columns: list[str]


@dataclass(frozen=True)
class Mapped:
    """What params.yaml says of a table.

    Attributes:
        where: the place there of these options, for messages.
        columns: the column of each role.
        classes: names of the classes; empty: from the table.
        semantic_classes: names of the values of the label maps.
        box_format: what the four numbers of a box are.
        relative_boxes: whether they are shares of the image's width and height.
        val, test: shares of the train rows that become these splits where the table has none of that name.
    """

    where: str
    columns: dict[str, str]
    classes: list[str] = field(default_factory=list)
    semantic_classes: list[str] = field(default_factory=list)
    box_format: BoxFormat = "xyxy"
    relative_boxes: bool = False
    val: float = 0.0
    test: float = 0.0

    def check(self, table: Table) -> None:
        """Holds the mapping against the table.

        Raises:
            ParamsError: an unknown role or column, or roles that lack another.
        """
        for role, column in self.columns.items():
            at = f"{self.where}.columns.{role}"
            if role not in ROLES:
                raise ParamsError(f"{at}: unknown key; {did_you_mean(role, ROLES)}")
            if column.partition(".")[0] not in table.columns:
                raise ParamsError(f"{at}: no column {column!r}; {did_you_mean(column, table.columns)}")
        have = self.columns.keys()
        if "image" not in have:
            raise ParamsError(f"{self.where}.columns: no 'image'; fix: write `image: COLUMN`")
        if {"category", "area", "iscrowd"} & have and not {"bbox", "mask"} & have:
            raise ParamsError(f"{self.where}.columns: objects without bbox and mask; fix: name the column of either")
        if {"bbox", "mask"} & have and "category" not in have and len(self.classes) != 1:
            raise ParamsError(
                f"{self.where}.columns: objects without category; fix: name its column, or the one class in `classes`"
            )
        if ("semantic" in self.columns) != bool(self.semantic_classes):
            raise ParamsError(f"{self.where}: a semantic column and semantic_classes go together; fix: write both")
        if not TASKS.keys() & have:
            raise ParamsError(f"{self.where}.columns: no truth; fix: name a column of {', '.join(TASKS)}")

    def outermost(self, roles: Iterable[str]) -> list[str]:
        """The outermost columns that these roles need."""
        return sorted({self.columns[role].partition(".")[0] for role in roles if role in self.columns})

    def value(self, row: Mapping[str, Any], role: str) -> Any:
        """A row's value in a role; None where the role has no column."""
        return _inner(row, self.columns[role].split(".")) if role in self.columns else None


def write(folder: Path, table: Table, mapped: Mapped, info: DatasetInfo, *, seed: int, on_error: OnError) -> None:
    """Writes the store; rows are read twice where classes or splits have to be found out first.

    Args:
        folder: where to.
        table: the rows.
        mapped: which column is what.
        info: name and terms; tasks and classes are filled in.
        seed: of the splits that the table does not have.
        on_error: what a faulty row or annotation does.
    """
    mapped.check(table)
    survey = _Survey(table, mapped)
    info.tasks = [task for role, task in TASKS.items() if role in mapped.columns]
    info.classes = mapped.classes or _named(table, mapped) or survey.classes()
    info.semantic_classes = mapped.semantic_classes
    info.thing_of_semantic = [-1] * len(mapped.semantic_classes)
    dealt = survey.dealt(seed)
    numbers = [part.num_rows for part in table.parts]
    total = None if None in numbers else sum(number or 0 for number in numbers)
    ingest(folder, info, _records(table, mapped, info, dealt), on_error=on_error, num_records=total)


def _named(table: Table, mapped: Mapped) -> list[str]:
    """The class names that the table itself carries; of label and category the same."""
    found = []
    for role in ("label", "category"):
        if role in mapped.columns:
            names = _class_names(table.features, mapped.columns[role].split("."))
            if names:
                found.append(names)
    if len(found) == 2 and found[0] != found[1]:
        raise ParamsError(
            f"{mapped.where}.columns: label and category have different classes; fix: name the column of one of them"
        )
    return found[0] if found else []


def _class_names(feature: Any, path: Sequence[str]) -> list[str]:
    """The names of a ClassLabel in Hugging Face's description of types; empty if it is something else."""
    while isinstance(feature, Mapping) and "_type" in feature and "feature" in feature:  # a list of something
        feature = feature["feature"]
    if isinstance(feature, list) and feature:
        return _class_names(feature[0], path)
    if not isinstance(feature, Mapping):
        return []
    if path:
        return _class_names(feature.get(path[0], {}), path[1:])
    names = feature.get("names", []) if feature.get("_type") == "ClassLabel" else []
    return [str(name) for name in names]


class _Seen(NamedTuple):
    split: str
    identity: str
    label: Any
    group: Any
    categories: list[Any]


class _Survey:
    """What only the rows tell: their classes, and how to deal them out; read at the first question, without images."""

    def __init__(self, table: Table, mapped: Mapped) -> None:
        self.table, self.mapped = table, mapped

    @cached_property
    def rows(self) -> list[_Seen]:
        """All rows, as far as their classes and splits depend on them."""
        seen = []
        needed = self.mapped.outermost(("id", "label", "category", "group"))
        for part in self.table.parts:
            for index, (_, row) in enumerate(part.read(needed)):
                label, group, categories = (self.mapped.value(row, role) for role in ("label", "group", "category"))
                identity = _identity(self.mapped, part, index, row)
                categories = categories if isinstance(categories, list) else []
                seen.append(_Seen(part.split, identity, label, group, categories))
        return seen

    def classes(self) -> list[str]:
        """The names that occur, sorted; of numbers, all from 0 to the greatest."""
        if not {"label", "category"} & self.mapped.columns.keys():
            return []
        values = {_number(value) for row in self.rows for value in (row.label, *row.categories)} - {None}
        if all(isinstance(value, int) for value in values):
            greatest = max(values, default=-1)
            if greatest >= MAX_CLASSES:
                raise ParamsError(
                    f"{self.mapped.where}.classes: missing, and the numbers of classes go up to {greatest}; fix: list "
                    "the names of classes 0, 1, ... there, and number the rows by them"
                )
            return [str(number) for number in range(greatest + 1)]
        return sorted(str(value) for value in values)

    def dealt(self, seed: int) -> dict[str, str]:
        """The split of each train row by its id, where train rows are to fill another split; else empty."""
        have = {part.split for part in self.table.parts}
        if "split" in self.mapped.columns:
            return {}
        if "train" not in have:
            raise PipelineError(
                f"{self.mapped.where}: no train rows (the source has {', '.join(sorted(have)) or 'none'}); "
                "fix: name the source's split in `splits: {train: ...}`"
            )
        missing = {"val": self.mapped.val, "test": self.mapped.test}
        shares = {name: share for name, share in missing.items() if name not in have and share > 0}
        if not shares:
            return {}
        if sum(shares.values()) >= 1:
            raise ParamsError(f"{self.mapped.where}: val and test leave no row for train; fix: smaller shares")
        rows = [row for row in self.rows if row.split == "train"]
        ids = [row.identity for row in rows]
        groups = None
        if "group" in self.mapped.columns:
            groups = [str(row.group) for row in rows if row.group is not None]
            if len(groups) < len(rows):
                raise ParamsError(
                    f"{self.mapped.where}: {len(rows) - len(groups)} images have no group; fix: give each one"
                )
        labels = [row.label for row in rows] if "label" in self.mapped.columns else None
        shares = {"train": 1 - sum(shares.values()), **shares}
        return dict(zip(ids, splits.assign(ids, shares=shares, seed=seed, labels=labels, groups=groups), strict=True))


def _records(table: Table, mapped: Mapped, info: DatasetInfo, dealt: Mapping[str, str]) -> Iterator[Record | Fault]:
    known = {name: label for label, name in enumerate(info.classes)}
    for part in table.parts:
        for index, (where, row) in enumerate(part.read(mapped.outermost(ROLES))):
            identity = _identity(mapped, part, index, row)
            split = dealt[identity] if dealt and part.split == "train" else part.split
            try:
                if "split" in mapped.columns:
                    split = _split(mapped.value(row, "split"))
                yield _record(row, mapped, known, part, identity, split, where)
            except _Wrong as wrong:
                fix = "correct or remove this row"
                yield Fault(wrong.kind, split, where, None, str(wrong), fix, action="dropped image")


class _Wrong(Exception):
    """What keeps a row from being a record; `kind` is shared by faults of one sort."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


def _split(value: Any) -> str:
    try:
        return SPLIT_NAMES[str(value).lower()]
    except KeyError:
        raise _Wrong("unknown split", f"split: {value!r} is none of {', '.join(SPLIT_NAMES)}") from None


def _identity(mapped: Mapped, part: Part, index: int, row: Mapping[str, Any]) -> str:
    value = mapped.value(row, "id")
    return f"{part.name}_{index:07d}" if value is None else str(value)


def _record(
    row: Mapping[str, Any],
    mapped: Mapped,
    known: Mapping[str, int],
    part: Part,
    identity: str,
    split: str,
    where: str,
) -> Record:
    image, path = _encoded(mapped.value(row, "image"), part, "image")
    name = mapped.value(row, "file_name") or path or identity
    if not is_inside(str(name)):
        name = PurePosixPath(str(name).replace("\\", "/")).name
    record = Record(split, identity, str(name), image, annotation=where)
    if "label" in mapped.columns:
        label = mapped.value(row, "label")
        if label is None:
            raise _Wrong("no class", "label: none")
        record.label = _class(label, known)
    if {"bbox", "mask"} & mapped.columns.keys():
        record.objects = _objects(row, mapped, known, image)
    if "semantic" in mapped.columns:
        record.semantic, _ = _encoded(mapped.value(row, "semantic"), part, "semantic")
    if "captions" in mapped.columns:
        sentences = mapped.value(row, "captions")
        record.captions = [sentences] if isinstance(sentences, str) else list(sentences or [])
        if not all(isinstance(sentence, str) for sentence in record.captions):
            raise _Wrong("bad caption", "captions: not sentences")
    if "target" in mapped.columns:
        target = mapped.value(row, "target")
        if isinstance(target, bool) or not isinstance(target, int | float):
            raise _Wrong("bad target", f"target: not a number ({target!r})")
        record.target = float(target)
    group = mapped.value(row, "group")
    record.group = None if group is None else str(group)
    return record


def _encoded(value: Any, part: Part, role: str) -> tuple[Encoded, str]:
    """Bytes or file of an image, and the name that it has in the table."""
    name = ""
    if isinstance(value, Mapping):
        name = str(value.get("path") or "")
        value = value.get("bytes") or name or None
    if isinstance(value, bytes):
        return value, name
    if isinstance(value, str) and part.root is not None:
        if not is_inside(value):
            raise _Wrong("bad file name", f"{role}: {value!r} is not a file inside the folder of the table")
        return part.root / value, value
    raise _Wrong("no image", f"{role}: neither encoded bytes nor a file's name ({type(value).__name__})")


def _class(value: Any, known: Mapping[str, int]) -> int:
    """A class index; what is none is returned as it is, for ingest to name."""
    return known.get(value, cast(int, value)) if isinstance(value, str) else _number(value)


def _number(value: Any) -> Any:
    """A truth value or a whole float, such as pandas makes of whole numbers, as an integer; anything else as it is."""
    is_whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole else value


def _objects(row: Mapping[str, Any], mapped: Mapped, known: Mapping[str, int], image: Encoded) -> list[RawObject]:
    values = {role: mapped.value(row, role) for role in OBJECT_ROLES if role in mapped.columns}
    lists = {role: each or [] for role, each in values.items() if each is not None or role not in OPTIONAL_ROLES}
    numbers = {role: len(each) if isinstance(each, list) else -1 for role, each in lists.items()}
    if min(numbers.values()) < 0 or len(set(numbers.values())) > 1:
        told = ", ".join(f"{'no list' if number < 0 else number} of {role}" for role, number in numbers.items())
        raise _Wrong("uneven objects", f"objects: not the same number of all their values ({told})")
    scale = _size(image) if mapped.relative_boxes and lists.get("bbox") else (1, 1)
    objects = []
    for index in range(numbers[next(iter(numbers))]):
        one = {role: values[index] for role, values in lists.items()}
        box = one.get("bbox")
        objects.append(
            RawObject(
                label=_class(one["category"], known) if "category" in one else 0,
                bbox=None if box is None else corners(box, mapped.box_format, *scale),
                mask=one.get("mask"),
                area=one.get("area"),
                iscrowd=bool(one.get("iscrowd") or False),
                index=index,
            )
        )
    return objects


def _size(image: Encoded) -> tuple[int, int]:
    try:
        return shown_size(opened(image if isinstance(image, bytes) else image.read_bytes()))
    except (ImageError, OSError):
        return 1, 1  # told when the image is decoded


def corners(box: Any, box_format: BoxFormat, height: int = 1, width: int = 1) -> list[Any]:
    """x1, y1, x2, y2 in pixels of a box that is given otherwise; one that is not four numbers is returned as it is.

    Args:
        box: four numbers.
        box_format: what they are.
        height: by which the second and fourth are multiplied; 1 for boxes in pixels. width alike.
        width: by which the first and third are multiplied.
    """
    if not isinstance(box, list | tuple):
        return [box]
    if len(box) != 4 or any(isinstance(value, bool) or not isinstance(value, int | float) for value in box):
        return list(box)
    a, b, c, d = (float(value) * side for value, side in zip(box, (width, height, width, height), strict=True))
    if box_format == "xywh":
        return [a, b, a + c, b + d]
    return [a - c / 2, b - d / 2, a + c / 2, b + d / 2] if box_format == "cxcywh" else [a, b, c, d]


def _inner(value: Any, path: Sequence[str]) -> Any:
    """The value at a path through structs, for each item where there is a list on the way."""
    if not path or value is None:
        return value
    if isinstance(value, list):
        return [_inner(item, path) for item in value]
    return _inner(value.get(path[0]) if isinstance(value, Mapping) else None, path[1:])
