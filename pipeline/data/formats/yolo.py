"""YOLO's text files: one per image, in each row a class number and a box or a polygon in shares of the image.

Source: https://docs.ultralytics.com/datasets/detect and /segment. Boxes are centre x, centre y, width and height. An
image without a text file shows nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline.data import images as image_bytes
from pipeline.data.formats import (
    SPELLINGS,
    WHOLE,
    Fault,
    Places,
    Repeatable,
    Source,
    about,
    files_below,
    first_folder,
    image_files,
    plain_info,
    shown,
)
from pipeline.data.formats.class_list import read_yaml
from pipeline.data.formats.exporting import FileNames, kinds_of, left_out, put
from pipeline.data.formats.polygons import joined, rings
from pipeline.data.records import RawObject, Record
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from pipeline.ops import masks as mask_ops
from pipeline.structures import SPLITS

Rows = Literal["boxes", "polygons", "keypoints"]
HEADER_BYTES = 65536
EDGE = 1e-6  # what rounding to six decimals may put beyond 1


def config_of(root: Path) -> str | None:
    """The YAML file that names the classes and splits, or None where it is not plain which one that is."""
    names = [path.name for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")])]
    usual = [name for name in names if name.partition(".")[0] in ("data", "dataset", "config")]
    return usual[0] if usual else names[0] if len(names) == 1 else None


def layout(root: Path) -> dict[str, Places]:
    """The folders that the YAML file names, or `images/<split>`, or `images`; empty where nothing is found."""
    config = config_of(root)
    if config is not None and set(SPLITS) & read_yaml(root / config, config).keys():
        return places(root, config)
    divided: dict[str, Places] = {}
    for split, spellings in SPELLINGS.items():
        folders = (place for name in spellings for place in (f"images/{name}", f"{name}/images"))
        images = first_folder(root, *folders)
        if images is not None:
            divided[split] = {"images": images}
    return divided or ({WHOLE: {"images": "images"}} if (root / "images").is_dir() else {})


def places(root: Path, config: str) -> dict[str, Places]:
    """The folders of images of each split that a data.yaml names, relative to the dataset's folder.

    Raises:
        PipelineError: a folder that it names is not there, or it names none.
    """
    content = read_yaml(root / config, config)
    base = (root / config).parent / str(content.get("path", "."))
    result = {}
    for split in SPLITS:
        value = content.get(split)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise PipelineError(f"{config} {split}: not one folder ({value!r}); fix: give `splits` in params.yaml")
        # Roboflow writes ../train/images for a folder that is beside the file
        for folder in (
            base / value,
            (root / config).parent / value,
            (root / config).parent / value.removeprefix("../"),
        ):
            if folder.exists():
                result[split] = {"images": _relative(folder, root)}
                break
        else:
            raise PipelineError(f"{config} {split}: no such folder ({value!r}); fix: correct it, or give `splits`")
    if not result:
        raise PipelineError(f"{config}: names no train, val or test; fix: give `splits` in params.yaml")
    return result


def _relative(path: Path, root: Path) -> str:
    resolved = path.resolve()
    return resolved.relative_to(root.resolve()).as_posix() if resolved.is_relative_to(root.resolve()) else str(resolved)


def read(
    root: Path,
    *,
    split: str,
    images: str | Path,
    labels: str | Path | None = None,
    numbers: Mapping[int, str],
    rows: Rows | None = None,
    keypoints: Sequence[str] = (),
) -> Source:
    """The images of one split.

    Args:
        root: the dataset's folder; the other places are relative to it.
        split: train, val or test.
        images: the folder of images.
        labels: the folder of text files; None: `images` with its last part "images" made "labels".
        numbers: name of each class number; classes are indexed in the order of the numbers.
        rows: what a row holds; None: what the first row of the split shows. Rows of another kind are faults.
        keypoints: names of the P points that follow each box as x, y or x, y, visibility.

    Raises:
        PipelineError: a folder is missing, or not one image has a text file.
    """
    files = image_files(root / images, root)
    folder = root / labels if labels is not None else _labels_beside(root / images)
    reader = _Reader(root, split, files, folder, numbers, rows, keypoints)
    if not any(reader.text_path(key).is_file() for key in files):
        raise PipelineError(
            f"{shown(folder, root)}: no text file for any of the {len(files)} images of {shown(root / images, root)}; "
            "fix: name the folder of labels"
        )
    tasks = ["detection", *({"polygons": ["instance"], "keypoints": ["keypoints"]}.get(reader.rows, []))]
    info = plain_info(tasks, numbers.values())
    info.keypoints = list(keypoints)
    return Source(info, Repeatable(reader.records), len(files))


def _labels_beside(images: Path) -> Path:
    """Where YOLO looks for text files: at the folder of images with the last `images` in its path made `labels`."""
    parts = list(images.parts)
    for index in reversed(range(len(parts))):
        if parts[index] == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return images


class _Reader:
    """The folders of one split."""

    def __init__(
        self,
        root: Path,
        split: str,
        files: Mapping[str, Path],
        folder: Path,
        numbers: Mapping[int, str],
        rows: Rows | None,
        keypoints: Sequence[str],
    ) -> None:
        self.root, self.split, self.files, self.folder = root, split, files, folder
        self.labels = {number: index for index, number in enumerate(sorted(numbers))}
        self.num_points = len(keypoints)
        self.stated_rows: Rows | None = "keypoints" if keypoints else rows

    def text_path(self, key: str) -> Path:
        """The text file of an image."""
        return self.folder / f"{key}.txt"

    @cached_property
    def rows(self) -> Rows:
        """What rows hold: as stated, or as the first row shows."""
        if self.stated_rows is not None:
            return self.stated_rows
        for key in self.files:
            try:
                lines = _lines(self.text_path(key))
            except (OSError, ValueError):
                continue
            if lines:
                return "polygons" if len(lines[0][1]) > 6 else "boxes"
        return "boxes"

    def records(self) -> Iterator[Record | Fault]:
        keys = {self.text_path(key) for key in self.files}
        texts = (path for path in files_below(self.folder, self.root) if path.suffix.lower() == ".txt")
        for path in texts:
            name = shown(path, self.root)
            if path.suffix != ".txt":
                fix = "write the ending in small letters"
                yield Fault("label file", self.split, name, None, f"is not read, as it ends in {path.suffix}", fix)
            elif path not in keys and path.name not in ("classes.txt", "train.txt", "val.txt", "test.txt"):
                fix = "add the image or remove this file"
                yield Fault("no image", self.split, name, None, "has no image", fix)
        for key, path in self.files.items():
            text = self.text_path(key)
            name = shown(text, self.root)
            record = Record(
                split=self.split,
                image_id=key,
                file_name=shown(path, self.root),
                image=path,
                objects=[],
                annotation=name,
            )
            try:
                lines = _lines(text)
                size = _shown_size(path) if lines else None
            except FileNotFoundError:
                yield record
                continue
            except (OSError, ValueError) as error:
                fix = "save it as UTF-8 text"
                yield Fault("label file", self.split, name, None, f"not readable: {error}", fix, "dropped image")
                continue
            if size is None:  # shows nothing, or is no image, which is told where it is decoded
                yield record
                continue
            yield from about(record.image_id, self._fill(record, lines, size))
            yield record

    def _fill(self, record: Record, lines: list[tuple[int, list[str]]], size: tuple[int, int]) -> Iterator[Fault]:
        """Adds the objects of the rows to a record."""
        assert record.objects is not None
        seen: dict[tuple[str, ...], int] = {}
        for number, fields in lines:
            try:
                first = seen.setdefault(tuple(fields), number)
                if first != number:
                    raise ValueError(f"row: line {first} says the same")
                record.objects.append(self._object(fields, size, number))
            except ValueError as error:
                place = f"{record.annotation}:{number}"
                yield Fault("row", self.split, place, None, str(error), "correct or remove this row")

    def _object(self, fields: list[str], size: tuple[int, int], number: int) -> RawObject:
        label = _class(fields[0], self.labels)
        values = [_share(field, position) for position, field in enumerate(fields[1:], start=2)]
        height, width = size
        if self.rows == "polygons":
            if len(values) == 4:
                raise ValueError("row: a box, where the first row of the split is a polygon")
            if len(values) % 2 or len(values) < 6:
                raise ValueError(f"row: {len(values)} coordinates, which is no polygon of three or more points")
            _check_shares(values)
            polygon = [value * side for value, side in zip(values, (width, height) * (len(values) // 2), strict=True)]
            return RawObject(label=label, mask=[polygon], index=number)
        expected = {4} if self.rows == "boxes" else {4 + 2 * self.num_points, 4 + 3 * self.num_points}
        if len(values) not in expected:
            hint = " (a polygon, where the first row of the split is a box)" if len(values) >= 6 else ""
            wanted = " or ".join(str(count + 1) for count in sorted(expected))
            raise ValueError(f"row: {len(values) + 1} columns where {wanted} belong{hint}")
        _check_shares(values[:4])
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        points = self._points(values[4:], size) if self.num_points else None
        return RawObject(label=label, bbox=box, keypoints=points, index=number)

    def _points(self, values: list[float], size: tuple[int, int]) -> list[float]:
        """x, y, visibility of each point in pixels; without visibilities a point at 0, 0 is absent."""
        height, width = size
        step = len(values) // self.num_points
        points = []
        for start in range(0, len(values), step):
            x, y = values[start : start + 2]
            visibility = values[start + 2] if step == 3 else 2.0 * bool(x or y)
            points += [x * width, y * height, visibility] if visibility else [0.0, 0.0, 0.0]
        return points


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and fields of each line that holds any."""
    text = path.read_bytes().decode("utf-8-sig")
    if "\0" in text:
        raise ValueError("UTF-16, not UTF-8")
    split = ((number, line.split()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, fields) for number, fields in split if fields]


def _shown_size(path: Path) -> tuple[int, int] | None:
    """Height and width of an image as it is shown, mostly from the start of the file; None where it is no image."""
    for num_bytes in (HEADER_BYTES, -1):
        try:
            with path.open("rb") as file:
                return image_bytes.shown_size(image_bytes.opened(file.read(num_bytes)))
        except (OSError, PipelineError):
            continue
    return None


def _class(text: str, labels: Mapping[int, int]) -> int:
    try:
        value = float(text)
        number = int(value)
    except (ValueError, OverflowError):
        raise ValueError(f"class: not a number ({text!r})") from None
    if number != value:
        raise ValueError(f"class: not a whole number ({text!r})")
    if number not in labels:
        raise ValueError(f"class: no class {number} (there are {len(labels)}: {min(labels)} to {max(labels)})")
    return labels[number]


def _share(text: str, column: int) -> float:
    if "," in text:
        raise ValueError(f"column {column}: a comma in the number ({text!r}); points are expected")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"column {column}: not a number ({text!r})")
    return value


def _check_shares(values: Sequence[float]) -> None:
    for column, value in enumerate(values, start=2):
        if not -EDGE <= value <= 1 + EDGE:
            hint = ", which looks like pixels" if value > 2 else ""
            raise ValueError(f"column {column}: not a share of the image in 0..1 ({value:g}{hint})")


def write(folder: Path, store: Store) -> list[str]:
    """Writes `images/<split>`, `labels/<split>` and data.yaml; rows are polygons where all objects have masks.

    Numbers have nine decimals: boxes come back within 1e-4 pixels in images up to 50,000 pixels wide. A polygon runs
    along the edges of pixels and through all parts and holes of its mask, so pycocotools draws the same mask; other
    programs may count pixels at the rim otherwise. Two objects alike in all would be read as one. Image bytes are those
    of the store, so an EXIF orientation stays in them; rows are in shares of the image as shown.

    Returns:
        In words, what the format has no place for; crowds are left out.

    Raises:
        PipelineError: the store holds no objects.
    """
    info, names = store.info, FileNames()
    kinds = kinds_of(store)
    if "objects" not in kinds:
        raise PipelineError(f"{info.name}: has no boxes, which are what YOLO's files hold; fix: another format")
    as_polygons = "instance" in info.tasks
    num_crowds = 0
    for split_name in info.counts:
        split = store.split(split_name)
        for index in range(len(split)):
            row = split.row(index)
            name = names.of(row, split_name)
            objects = row.get("objects") or []
            num_crowds += sum(obj["iscrowd"] for obj in objects)
            lines = [_line(obj, row, as_polygons) for obj in objects if not obj["iscrowd"]]
            put(folder / "images" / split_name / name, row["image"])
            put(folder / "labels" / split_name / f"{Path(name).stem}.txt", "".join(lines).encode())
    lines = [
        "path: .\n",
        *(f"{split_name}: images/{split_name}\n" for split_name in SPLITS if split_name in info.counts),
    ]
    lines += ["names:\n", *(f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(info.classes))]
    put(folder / "data.yaml", "".join(lines).encode())
    crowds = [f"crowds ({num_crowds})"] if num_crowds else []
    return left_out(store, "objects", "masks") + crowds


def _line(obj: Mapping[str, Any], row: Mapping[str, Any], as_polygons: bool) -> str:
    height, width = row["height"], row["width"]
    if as_polygons and obj["mask"] is not None:
        corners = joined(rings(mask_ops.decode(obj["mask"], height, width)))
        values = [value for x, y in corners for value in (x / width, y / height)]
    else:
        x1, y1, x2, y2 = obj["bbox"]
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    numbers = (f"{value:.9f}".rstrip("0").rstrip(".") for value in values)
    return f"{obj['label']} {' '.join(numbers)}\n"
