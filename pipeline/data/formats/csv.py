"""Tables as CSV: one row per image, or per box, read by the names in the header whatever their order.

Everything is text until it is asked for as a number, so that classes called "None", "NA" or "01" stay what they are.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.formats import WHOLE, Action, Fault, Places, Repeatable, Source, is_inside, plain_info, shown
from pipeline.data.formats.exporting import FileNames, kinds_of, left_out, put
from pipeline.data.records import RawObject, Record
from pipeline.data.store import Store
from pipeline.errors import PipelineError, did_you_mean
from pipeline.structures import SPLITS

# What each column may be called, in small letters; the first is what `write` calls it.
NAMES = {
    "file": ("file", "file_name", "filename", "image", "image_path", "path"),
    "class": ("class", "class_name", "label", "category"),
    "xmin": ("xmin", "x1", "x_min", "left"),
    "ymin": ("ymin", "y1", "y_min", "top"),
    "xmax": ("xmax", "x2", "x_max", "right"),
    "ymax": ("ymax", "y2", "y_max", "bottom"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "split": ("split", "subset", "set"),
    "group": ("group",),
    "target": ("target",),
    "caption": ("caption",),
}
BOX = ("xmin", "ymin", "xmax", "ymax")
SAME_SPLIT = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
DELIMITERS = ",;\t"
DROPPED_IMAGE: Action = "dropped image"

Row = tuple[int, Mapping[str, str]]


def layout(root: Path) -> dict[str, Places]:
    """annotations.csv or else the only table there is; empty where it is not plain which one."""
    names = [path.name for path in sorted(root.glob("*.csv"))]
    name = "annotations.csv" if "annotations.csv" in names else names[0] if len(names) == 1 else None
    return {} if name is None else {WHOLE: {"annotations": name}}


def read(
    root: Path,
    *,
    split: str | None,
    annotations: str | Path,
    images: str | Path = ".",
    columns: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> Source:
    """The images that a table names, those without rows left out.

    Args:
        root: the dataset's folder; the other places are relative to it.
        split: train, val or test; None: as the column `split` says, or train without one.
        annotations: the table, separated by commas, semicolons or tabs, with a header.
        images: the folder that the column `file` is relative to.
        columns: what the table calls a column of `NAMES`, where it is none of the names there.
        classes: names in the order of their indices; None: those that occur, sorted.

    A table with box columns has one row per box, and a row whose box is empty says that an image shows nothing. Without
    them it has one row per image, with a class, a target or a caption (of which there may be several rows).

    Raises:
        PipelineError: the table cannot be read as a whole: its encoding, its header, a row of other length.
    """
    table = Table(root, annotations, columns or {})
    has_splits = split is None and "split" in table.columns
    has_boxes = "xmin" in table.columns
    if classes is None:
        classes = sorted({row["class"] for _, row in table.rows if row.get("class")})
    reader = _Reader(table, None if has_splits else split or "train", root / images, classes, has_boxes)
    tasks = ["detection"] if has_boxes else ["classification"] if "class" in table.columns else []
    tasks += ["captions"] if "caption" in table.columns else []
    tasks += ["regression"] if "target" in table.columns else []
    return Source(plain_info(tasks, classes), Repeatable(reader.records), len(reader.by_file), has_splits=has_splits)


class Table:
    """The rows of a CSV file by the names of `NAMES`.

    Raises:
        PipelineError: it cannot be read, or its header does not tell which column is which.
    """

    def __init__(self, root: Path, place: str | Path, columns: Mapping[str, str]) -> None:
        path = root / place
        self.name = shown(path, root)
        header, lines = fields_of(path, self.name)
        self.columns = self._named(header, columns)
        self.rows: list[Row] = [
            (number, {name: fields[position] for name, position in self.columns.items()}) for number, fields in lines
        ]

    def _named(self, header: list[str], columns: Mapping[str, str]) -> dict[str, int]:
        """The position of each known column."""
        lowered = [field.lower() for field in header]
        for field in lowered:
            if field and lowered.count(field) > 1:
                raise PipelineError(f"{self.name}:1: two columns are called {field!r}; fix: rename one")
        for name, own in columns.items():
            if name not in NAMES:
                raise PipelineError(f"columns {name}: no such column is read; {did_you_mean(name, NAMES)}")
            if own not in header:
                raise PipelineError(f"{self.name}:1: no column {own!r}; {did_you_mean(own, header)}")
        found: dict[str, int] = {}
        for name, known in NAMES.items():
            taken = [columns[name].lower()] if name in columns else [other for other in known if other in lowered]
            if len(taken) > 1:
                raise PipelineError(
                    f"{self.name}:1: both {taken[0]!r} and {taken[1]!r} may be the {name}; fix: choose in `columns`"
                )
            if taken:
                found[name] = lowered.index(taken[0])
        if "file" not in found:
            raise PipelineError(f"{self.name}:1: no column of file names ({', '.join(header)}); fix: give `columns`")
        missing = [corner for corner in BOX if corner not in found]
        if 0 < len(missing) < 4 or (not missing and "class" not in found):
            lacking = missing[0] if missing else "class"
            raise PipelineError(f"{self.name}:1: boxes, but no column {lacking}; fix: add it or give `columns`")
        if not {"class", "target", "caption"} & set(found):
            raise PipelineError(f"{self.name}:1: no column of a class, target or caption; fix: give `columns`")
        return found


def fields_of(path: Path, name: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV file, and of each row its line and as many fields, all without the blanks around them.

    Args:
        path: of the file, separated by commas, semicolons or tabs.
        name: of the file, for messages.

    Raises:
        PipelineError: it cannot be read, has no rows, or one of another length than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PipelineError(f"{name}: no such file; fix: name the table") from None
    except OSError as error:
        raise PipelineError(f"{name}: not readable ({error.strerror}); fix: name a readable file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PipelineError(f"{name}:{line}: not UTF-8; fix: save the file as UTF-8") from None
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    # not splitlines(), which ends a line at U+2028 and the like too
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = []
    try:
        for fields in reader:
            stripped = [field.strip() for field in fields]
            if any(stripped):
                lines.append((reader.line_num, stripped))
    except csv.Error as error:
        raise PipelineError(f"{name}:{reader.line_num}: not CSV ({error}); fix: quote the field") from None
    if len(lines) < 2:
        raise PipelineError(f"{name}: no header and rows; fix: write a header and one row per image or box")
    (_, header), *rows = lines
    for number, fields in rows:
        if len(fields) != len(header):
            raise PipelineError(
                f"{name}:{number}: {len(fields)} fields where the header has {len(header)}; fix: correct it"
            )
    return header, rows


class _Reader:
    """The rows of one table, gathered by image."""

    def __init__(self, table: Table, split: str | None, folder: Path, classes: Sequence[str], has_boxes: bool) -> None:
        self.table, self.split, self.folder, self.has_boxes = table, split, folder, has_boxes
        self.labels = {name: index for index, name in enumerate(classes)}
        self.by_file: dict[str, list[Row]] = {}
        for number, row in table.rows:
            self.by_file.setdefault(row["file"], []).append((number, row))

    def records(self) -> Iterator[Record | Fault]:
        for file_name, rows in self.by_file.items():
            record = Record(
                split=self.split or "",
                image_id=file_name,
                file_name=file_name,
                image=self.folder / file_name,
                annotation=f"{self.table.name}:{rows[0][0]}",
            )
            if self.has_boxes:
                record.objects = []
            if "caption" in self.table.columns:
                record.captions = []
            kept = True
            for number, row in rows:
                try:
                    self._of_image(record, row, is_first=number == rows[0][0])
                except ValueError as error:
                    kept = False
                    yield self._fault(record, number, error, DROPPED_IMAGE)
                    break
                try:
                    self._of_row(record, number, row)
                except ValueError as error:
                    yield self._fault(record, number, error, "dropped annotation")
            if kept:
                yield record

    def _fault(self, record: Record, number: int, error: ValueError, action: Action) -> Fault:
        split, place = record.split or "train", f"{self.table.name}:{number}"
        fix = "correct or remove this row"
        return Fault("row", split, place, None, str(error), fix, action, image_id=record.image_id)

    def _of_image(self, record: Record, row: Mapping[str, str], *, is_first: bool) -> None:
        """What every row says of the image as a whole, which must agree."""
        if not is_inside(record.file_name):
            raise ValueError(f"file: empty, or leaves the folder of images ({record.file_name!r})")
        split = self.split or SAME_SPLIT.get(row["split"].lower(), row["split"].lower())
        if split not in SPLITS:
            raise ValueError(f"split: should be {', '.join(SPLITS)} ({row['split']!r})")
        label, target = None, None
        if not self.has_boxes and "class" in row:
            label = self._label(row["class"])
        if row.get("target") is not None:
            target = _number(row["target"], "target")
        size = None
        if row.get("width") and row.get("height"):
            size = (int(_number(row["height"], "height")), int(_number(row["width"], "width")))
        values = {"split": split, "label": label, "target": target, "group": row.get("group") or None, "size": size}
        for name, value in values.items():
            if not is_first and getattr(record, name) != value:
                raise ValueError(f"{name}: {value!r}, but an earlier row of this image says {getattr(record, name)!r}")
            setattr(record, name, value)
        if not (is_first or self.has_boxes or "caption" in row):
            raise ValueError("file: an earlier row is of this image too")

    def _of_row(self, record: Record, number: int, row: Mapping[str, str]) -> None:
        """What each row adds to the image: a box, a caption."""
        if record.captions is not None and row["caption"]:
            record.captions.append(row["caption"])
        if record.objects is None or not any(row[corner] for corner in BOX):
            if record.objects is not None and row["class"]:
                raise ValueError("xmin: a class without a box")
            return
        box = [_number(row[corner], corner) for corner in BOX]
        record.objects.append(RawObject(label=self._label(row["class"]), bbox=box, index=number))

    def _label(self, name: str) -> int:
        if name not in self.labels:
            raise ValueError(f"class: {name!r} is not among the classes; {did_you_mean(name, self.labels)}")
        return self.labels[name]


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        comma = "; a point is expected, not a comma" if "," in text else ""
        raise ValueError(f"{name}: not a number ({text!r}{comma})")
    return value


def write(folder: Path, store: Store) -> list[str]:
    """Writes `images/<split>` and annotations.csv: a row per box, or per image where there are no boxes.

    Boxes and targets come back to float32, labels and groups exactly; an image without boxes has a row whose box is
    empty. Image bytes are those of the store, so an EXIF orientation stays in them; boxes are in pixels of the image as
    shown.

    Returns:
        In words, what the format has no place for.

    Raises:
        PipelineError: the store has neither boxes, labels, targets nor captions.
    """
    info, names = store.info, FileNames()
    kinds = kinds_of(store)
    has_boxes = "objects" in kinds
    if not {"objects", "label", "target", "captions"} & kinds:
        raise PipelineError(f"{info.name}: has nothing that a table holds; fix: export it as masks or coco")
    header = ["file", "split", "width", "height"]
    header += ["group"] if any("group" in store.split(name).table.column_names for name in info.counts) else []
    header += ["class", *BOX] if has_boxes else ["class"] if "label" in kinds else []
    header += ["target"] if "target" in kinds else []
    header += ["caption"] if "captions" in kinds and not has_boxes else []
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for split_name in info.counts:
        split = store.split(split_name)
        for index in range(len(split)):
            row = split.row(index)
            name = f"images/{split_name}/{names.of(row, split_name)}"
            put(folder / name, row["image"])
            common = {"file": name, "split": split_name, "width": row["width"], "height": row["height"]}
            common |= {"group": row.get("group"), "target": _shortest(row.get("target"))}
            if has_boxes:
                boxes = [
                    dict(zip(BOX, map(_shortest, obj["bbox"]), strict=True)) | {"class": info.classes[obj["label"]]}
                    for obj in row.get("objects") or []
                ]
                writer.writerows(common | box for box in boxes or [{}])
            else:
                label = {"class": info.classes[row["label"]]} if row.get("label") is not None else {}
                captions = row.get("captions") or [""]
                writer.writerows(common | label | {"caption": caption} for caption in captions)
    put(folder / "annotations.csv", text.getvalue().encode())
    crowds = ["which boxes are of crowds"] if has_boxes else []
    kept = ("objects", "target") if has_boxes else ("label", "captions", "target")
    return left_out(store, *kept) + crowds


def _shortest(value: float | None) -> Any:
    """The shortest text that is the same float32."""
    return None if value is None else np.format_float_positional(np.float32(value), trim="-")
