"""Predictions in other tools' files: COCO's results, YOLO's text rows, the VOC devkit's lists, each value checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from pipeline.data.formats import coco
from pipeline.data.formats.coco import Id
from pipeline.data.formats.json_file import BOM, NOT_FINITE, explain
from pipeline.errors import PipelineError, did_you_mean

Kind = Literal["boxes", "masks", "keypoints"]

NEEDED = {"boxes": "bbox", "masks": "segmentation", "keypoints": "keypoints"}
"""What each entry of a COCO result must have; a box is taken from the mask or the keypoints where there is none."""


@dataclass
class Found:
    """N detections as their file has them, in its order.

    Attributes:
        images: positions of the images in the truth.
        labels: class indices.
        scores: finite numbers.
        boxes_xywh: left, top, width, height in pixels, as COCO has them.
        masks: run-length dicts, or empty.
        keypoints: lists of x, y, score, or empty.
    """

    images: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    boxes_xywh: list[list[float]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
    keypoints: list[list[float]] = field(default_factory=list)


class RunLength(msgspec.Struct, gc=False):
    """A mask as COCO's results have it."""

    size: tuple[int, int]
    counts: str | list[int]


class Entry(msgspec.Struct, gc=False):
    """One detection of a COCO result; https://cocodataset.org/#format-results."""

    image_id: Id
    category_id: Id
    score: float
    bbox: list[float] | None = None
    segmentation: RunLength | list[list[float]] | None = None
    keypoints: list[float] | None = None


class Sentence(msgspec.Struct, gc=False):
    """One caption of a COCO result."""

    image_id: Id
    caption: str


def entries(path: Path, kind: type[Any], what: str) -> list[Any]:
    """The entries of a JSON list, of the declared type.

    Args:
        path: the file.
        kind: a msgspec struct.
        what: what the entries are, for messages.

    Raises:
        PipelineError: no JSON list, or an entry that is wrong; names its number.
    """
    data = _bytes(path)
    try:
        found: list[Any] = msgspec.json.decode(data, type=list[kind])  # type: ignore[valid-type]
        return found
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        fault = error
    try:
        # quoted, so that the entry that is NaN can be named
        raw = msgspec.json.decode(NOT_FINITE.sub(rb'"\1"', data), type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise PipelineError(_not_a_list(path, data, fault, what)) from None
    for index, text in enumerate(raw):
        try:
            msgspec.json.decode(text, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            at = re.search(r"\$\.(\w+)", str(error))
            value = msgspec.json.decode(text) if not isinstance(error, RecursionError) else None
            shown = f" ({value.get(at[1])!r})" if at and isinstance(value, dict) else ""
            raise PipelineError(
                f"{path.name}#{index} {explain(error)}{_short(shown)}; fix: correct or remove this entry"
            ) from None
    raise PipelineError(f"{path.name}: {explain(fault)}; fix: export the file anew")


def read_coco(
    path: Path, kind: Kind, *, positions: Mapping[Id, int], labels: Mapping[Id, int], num_keypoints: int = 0
) -> Found:
    """The detections of a COCO result.

    Args:
        path: a JSON list of {image_id, category_id, score} and bbox [x, y, width, height], segmentation or keypoints.
        kind: what is scored.
        positions: of each image by its id in the truth.
        labels: class index by category id.
        num_keypoints: P.

    Raises:
        PipelineError: an entry is wrong or of an image or category that the truth does not have.
    """
    rows: list[Entry] = entries(path, Entry, "results")
    found = Found(
        images=[positions.get(row.image_id, -1) for row in rows],
        labels=[labels.get(row.category_id, -1) for row in rows],
        scores=[row.score for row in rows],
    )
    for index in np.flatnonzero((np.array(found.images) < 0) | (np.array(found.labels) < 0))[:1]:
        row, place = rows[index], f"{path.name}#{index}"
        if found.images[index] < 0:
            raise PipelineError(f"{place} image_id: {unknown(row.image_id, positions, 'image')}")
        raise PipelineError(f"{place} category_id: {unknown(row.category_id, labels, 'category')}")
    needed = NEEDED[kind]
    for index, row in enumerate(rows):
        if getattr(row, needed) is None:
            raise PipelineError(f"{path.name}#{index} {needed}: missing; fix: export {kind}, or score another --task")
    _check_rows(path, "score", [[score] for score in found.scores], 1)
    if kind == "masks":
        found.masks = [_mask(f"{path.name}#{index}", row.segmentation) for index, row in enumerate(rows)]
    if kind == "keypoints":
        found.keypoints = [row.keypoints or [] for row in rows]
        _check_rows(path, "keypoints", found.keypoints, 3 * num_keypoints)
    found.boxes_xywh = [_around(found, index) if row.bbox is None else row.bbox for index, row in enumerate(rows)]
    boxes = _check_rows(path, "bbox", found.boxes_xywh, 4)
    for index in np.flatnonzero((boxes[:, 2:] < 0).any(1))[:1]:
        shown = found.boxes_xywh[index]
        raise PipelineError(f"{path.name}#{index} bbox: a negative side ({shown}); fix: write x, y, width, height")
    return found


def read_yolo(
    folder: Path,
    *,
    positions: Mapping[Any, int],
    sizes: Sequence[tuple[int, int] | None],
    numbers: Mapping[int, int],
) -> Found:
    """The detections of YOLO's text rows: class, centre x, centre y, width, height in shares of the image, score.

    Args:
        folder: a text file for each image that shows something, named after it.
        positions: of each image by its name without suffix.
        sizes: height and width of each image.
        numbers: class index by class number.

    Raises:
        PipelineError: a row is wrong, or a file is of no image.
    """
    found = Found()
    for path in _text_files(folder):
        key = path.relative_to(folder).with_suffix("").as_posix()
        size = sizes[positions[key]] if key in positions else None
        if size is None:
            raise PipelineError(f"{path.name}: no image {key!r} in the truth; fix: give predictions of the same images")
        height, width = size
        for place, fields in _rows(path):
            if len(fields) != 6:
                hint = " (no score)" if len(fields) == 5 else ""
                raise PipelineError(f"{place}: {len(fields)} columns{hint}; fix: write class, x, y, w, h, score")
            values = _numbers(place, fields[1:], ("x", "y", "w", "h", "score"))
            if max(values[:4]) > 2 or min(values[2:4]) < 0:
                raise PipelineError(f"{place} box: not shares of the image ({fields[1:5]}); fix: divide by its sides")
            label = numbers.get(int(fields[0])) if fields[0].isdecimal() else None
            if label is None:
                raise PipelineError(f"{place} class: {unknown(fields[0], {str(n): 0 for n in numbers}, 'class')}")
            x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
            found.boxes_xywh.append([x - w / 2, y - h / 2, w, h])
            found.scores.append(values[4])
            found.labels.append(label)
            found.images.append(positions[key])
    return found


def read_voc(folder: Path, *, positions: Mapping[Any, int], classes: Mapping[str, int], one_based: bool) -> Found:
    """The detections of the VOC devkit's lists: a file for each class, in each row image, score, x1, y1, x2, y2.

    Args:
        folder: files `[comp3_det_test_]CLASS.txt`.
        positions: of each image by its name.
        classes: index by name.
        one_based: whether pixels count from 1 and the last one belongs to the box.

    Raises:
        PipelineError: a row is wrong, or of an image or class that the truth does not have.
    """
    found = Found()
    for path in _text_files(folder):
        fitting = [name for name in classes if path.stem == name or path.stem.endswith(f"_{name}")]
        name = max(fitting, key=len, default=None)  # of `bus` and `school_bus` the whole of what stands there
        if name is None:
            raise PipelineError(f"{path.name}: named after no class; {did_you_mean(path.stem, classes)}")
        for place, fields in _rows(path):
            if len(fields) != 6:
                raise PipelineError(f"{place}: {len(fields)} columns; fix: write image, score, x1, y1, x2, y2")
            if fields[0] not in positions:
                raise PipelineError(f"{place} image: {unknown(fields[0], positions, 'image')}")
            score, *box = _numbers(place, fields[1:], ("score", "x1", "y1", "x2", "y2"))
            if one_based:
                box = [box[0] - 1, box[1] - 1, box[2], box[3]]
            if box[2] < box[0] or box[3] < box[1]:
                raise PipelineError(f"{place} box: its corners are swapped ({fields[2:]}); fix: write x1, y1, x2, y2")
            found.images.append(positions[fields[0]])
            found.boxes_xywh.append([box[0], box[1], box[2] - box[0], box[3] - box[1]])
            found.scores.append(score)
            found.labels.append(classes[name])
    return found


def ids_of(path: Path) -> dict[Id, str]:
    """Name of each image by its id in a COCO file."""
    images = coco.File(path.parent, path.name, has_categories=False).images
    ids = [msgspec.json.decode(raw, type=dict[str, Any]).get("id", "") for raw in images]
    return {image_id: str(image_id) for image_id in ids}


def read_captions(path: Path, image_ids: Mapping[Id, str]) -> dict[str, str]:
    """The caption of each image in a COCO result.

    Raises:
        PipelineError: an entry is wrong, of no image of the truth, or the second of its image.
    """
    result: dict[str, str] = {}
    for index, entry in enumerate(entries(path, Sentence, "captions")):
        image = image_ids.get(entry.image_id)
        if image is None:
            raise PipelineError(f"{path.name}#{index} image_id: {unknown(entry.image_id, image_ids, 'image')}")
        if image in result:
            raise PipelineError(f"{path.name}#{index} image_id: {entry.image_id!r} has a caption; fix: keep one")
        result[image] = entry.caption
    return result


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"{path.name}: no such file; fix: name the file of predictions") from None
    except IsADirectoryError:
        raise PipelineError(f"{path.name}: a folder, not a file; fix: name a JSON file, or another --format") from None
    return data.removeprefix(BOM)


def _not_a_list(path: Path, data: bytes, error: Exception, what: str) -> str:
    text = data.lstrip()
    if not text:
        return f"{path.name}: an empty file; fix: write [] where nothing was found"
    lines = [line for line in text.splitlines()[:3] if line.strip()]
    try:
        objects = [msgspec.json.decode(line) for line in lines]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        objects = []
    if len(objects) > 1 and all(isinstance(item, dict) for item in objects):
        return f"{path.name}: JSON lines, not one list; fix: write the {what} as one list [...]"
    if text.startswith(b"{"):
        return f"{path.name}: an object, not a list; fix: give the list of {what}, as COCO's results are"
    return f"{path.name}: {explain(error)}; fix: give the list of {what}, as COCO's results are"


def unknown(value: Id, known: Mapping[Any, Any], what: str) -> str:
    """What to say of an id that the truth does not have."""
    other: Id | None = int(value) if isinstance(value, str) and value.isdecimal() else None
    other = str(value) if isinstance(value, int) else other
    if other is not None and other in known:
        kind = "text" if isinstance(value, str) else "a number"
        return f"{value!r} is {kind}, the truth has {other!r}; fix: write it as the truth does"
    have = ", ".join(repr(key) for key in sorted(known, key=str)[:5]) + (", ..." if len(known) > 5 else "")
    return f"no {what} {value!r} in the truth (it has {have or 'none'}); fix: score against the truth of the same split"


def _check_rows(path: Path, key: str, rows: list[list[float]], count: int) -> np.ndarray:
    """The rows as an array, each of so many finite numbers."""
    for index, row in enumerate(rows):
        if len(row) != count:
            shown = _short(str(row))
            raise PipelineError(
                f"{path.name}#{index} {key}: {len(row)} numbers where {count} belong ({shown}); fix: correct it"
            )
    values = np.array(rows, np.float64).reshape(-1, count)
    for index in np.flatnonzero(~np.isfinite(values).all(1))[:1]:
        shown = _short(str(rows[index]))
        raise PipelineError(f"{path.name}#{index} {key}: not finite ({shown}); fix: correct or remove this entry")
    return values


def _mask(place: str, segmentation: RunLength | list[list[float]] | None) -> dict[str, Any]:
    """A checked compressed run-length code; what is shorter than its mask would read beyond its memory."""
    from pipeline.ops import masks as mask_ops

    if not isinstance(segmentation, RunLength):
        raise PipelineError(f"{place} segmentation: polygons; fix: encode results as run lengths, as COCO does")
    height, width = segmentation.size
    counts = segmentation.counts
    runs = mask_ops.runs_of(counts.encode("ascii", "replace")) if isinstance(counts, str) else counts
    if runs is None or min(runs, default=0) < 0 or sum(runs) != height * width:
        covered = "not a run-length code" if runs is None or min(runs, default=0) < 0 else f"{sum(runs)} pixels"
        raise PipelineError(
            f"{place} segmentation: {covered}, the mask is {height} x {width}; fix: encode the mask of the whole image"
        )
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode("ascii")}
    return mask_ops.from_runs(counts, height, width)


def _around(found: Found, index: int) -> list[float]:
    """The box of a detection that came without one: around its mask or keypoints."""
    from pipeline.ops import masks as mask_ops

    if found.masks:
        x1, y1, x2, y2 = mask_ops.box_of(found.masks[index])
    else:
        points = np.array(found.keypoints[index]).reshape(-1, 3)[:, :2]
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _text_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise PipelineError(f"{folder.name}: no folder; fix: name the folder of text files with predictions")
    return sorted(folder.rglob("*.txt"))


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and fields of each row that holds any."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PipelineError(f"{path.name}: not UTF-8; fix: save the file as UTF-8") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if fields := line.split():
            yield f"{path.name}:{number}", fields


def _numbers(place: str, fields: list[str], names: tuple[str, ...]) -> list[float]:
    values = []
    for name, text in zip(names, fields, strict=True):
        try:
            values.append(float(text))
        except ValueError:
            raise PipelineError(f"{place} {name}: not a number ({text!r}); fix: correct or remove this row") from None
        if not math.isfinite(values[-1]):
            raise PipelineError(f"{place} {name}: not finite ({text}); fix: correct or remove this row")
    return values


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
