"""COCO's JSON of truth and results straight into columns, without a dict for each detection.

For files that are in order: what is not is refused in one line that names the row. 500,000 detections take a few
tenths of a second; where the compiled functions are loaded, or the file is large, a compiled scanner reads them faster.
"""

from __future__ import annotations

import gc
import mmap
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.metrics import overlaps
from pipeline.metrics.detection import DetectionColumns, Kind, ObjectColumns

SCANNED_FROM = 100 << 20
"""Bytes from which the scanner is worth the second that it takes to load; it needs half the memory."""
MAX_TABLE = 1 << 23
"""Ids below it are looked up in a table."""
KEYS = {"boxes": "bbox", "masks": "segmentation", "keypoints": "keypoints"}
FIX = "write it as COCO does"


@dataclass
class CocoTruth:
    """A COCO file of truth.

    Attributes:
        file: where it was read, for messages.
        image_ids: [I] int64, ascending: the images of `columns` by index.
        category_ids: [K] int64, ascending: the classes of `columns` by index.
        classes: names of the K classes.
        columns: the truths.
    """

    file: str
    image_ids: np.ndarray
    category_ids: np.ndarray
    classes: list[str]
    columns: ObjectColumns


def read_truth(path: Path, kind: Kind = "boxes") -> CocoTruth:
    """Reads a COCO file of truth; annotations may have any ids, 0 among them.

    Args:
        path: the file.
        kind: what is to be judged: boxes, masks (polygons or run lengths) or keypoints.

    Raises:
        PipelineError: not such a file, an id that occurs twice, an annotation of an unknown image or category (COCO's
            own tool drops it silently), or a value that cannot be.
    """
    import msgspec

    image: Any = msgspec.defstruct("image", [("id", int), ("height", int, 0), ("width", int, 0)], gc=False)
    category: Any = msgspec.defstruct("category", [("id", int), ("name", str, "")], gc=False)
    lists = [("images", list[image]), ("categories", list[category])]
    data = _read(path)
    rows, found = [], None
    if kind != "masks" and _is_scanned(data):
        content = _decoded(path, data, msgspec.defstruct("truth", [*lists, ("annotations", msgspec.Raw)]))
        found = _scanned_annotations(bytes(content.annotations), kind)
    if found is None:
        fields: list[tuple[Any, ...]] = [
            ("image_id", int),
            ("category_id", int),
            ("bbox", list[float]),
            ("area", float),
            ("iscrowd", int, 0),
            ("id", int | None, None),
        ]
        if kind == "masks":
            fields.insert(0, ("segmentation", list[list[float]] | _run_lengths()))
        if kind == "keypoints":
            fields[:0] = [("keypoints", list[float]), ("num_keypoints", int)]
        annotation: Any = msgspec.defstruct("annotation", fields, gc=False)
        content = _decoded(path, data, msgspec.defstruct("truth", [*lists, ("annotations", list[annotation])]))
        rows = content.annotations
        found = {name: _integers(rows, name) for name in ("image_id", "category_id", "iscrowd")}
        found |= {"area": _floats(rows, "area"), "bbox": _boxes(path, rows, "annotations")}
        found["id"] = np.array([row.id for row in rows if row.id is not None])
        if kind == "keypoints":
            found |= {"keypoints": _points(path, rows), "num_keypoints": _integers(rows, "num_keypoints")}
    image_ids, categories = _ids(path, content.images, "images"), _ids(path, content.categories, "categories")
    known = np.sort(found["id"])
    if (known[1:] == known[:-1]).any():
        raise PipelineError(f"{path} annotations: an id occurs twice; fix: give each annotation its own")
    columns = ObjectColumns(
        images=_looked_up(path, found["image_id"], image_ids, "annotations", "image_id"),
        labels=_looked_up(path, found["category_id"], categories, "annotations", "category_id"),
        boxes_xywh=found["bbox"],
        areas=found["area"],
        iscrowd=found["iscrowd"] == 1,
    )
    if kind == "masks":
        sizes = {image.id: (image.height, image.width) for image in content.images}
        columns.masks = _truth_masks(path, rows, sizes)
    if kind == "keypoints":
        columns.keypoints = _by_three(found["keypoints"])
        columns.ignored = found["num_keypoints"] == 0
    names = {row.id: row.name for row in content.categories}
    classes = [names[number] or str(number) for number in categories.tolist()]
    return CocoTruth(str(path), image_ids, categories, classes, columns)


def read_results(path: Path, truth: CocoTruth, kind: Kind = "boxes") -> DetectionColumns:
    """Reads COCO's list of results.

    Args:
        path: the file.
        truth: the file of truth that the results are of.
        kind: what is to be judged. Masks are judged by their own area, also where the results have boxes too
            (COCO's tool then takes the box's); masks missing where they are needed are refused (it scores boxes).

    Raises:
        PipelineError: not such a file, a result of an unknown image or category, or a value that cannot be.
    """
    import msgspec

    data = _read(path)
    masks, found = None, None
    if _is_scanned(data):
        found, masks = _scanned_results(data, kind, truth)
    if found is None:
        fields: list[tuple[Any, ...]] = [("image_id", int), ("category_id", int), ("score", float)]
        fields.append((KEYS[kind], _run_lengths() if kind == "masks" else list[float]))
        row: Any = msgspec.defstruct("result", fields, gc=False)
        rows = _decoded(path, data, list[row])
        found = {name: _integers(rows, name) for name in ("image_id", "category_id")}
        found["score"] = _floats(rows, "score")
        if kind == "boxes":
            found["bbox"] = _boxes(path, rows, "")
        elif kind == "keypoints":
            found["keypoints"] = _points(path, rows)
        else:
            masks = _masks(path, [row.segmentation for row in rows], "")
    images = _looked_up(path, found["image_id"], truth.image_ids, "", "image_id")
    labels = _looked_up(path, found["category_id"], truth.category_ids, "", "category_id")
    columns = DetectionColumns(images, labels, found["score"], found.get("bbox", np.zeros((len(images), 4))), masks)
    if kind == "keypoints":
        columns.keypoints = _by_three(found["keypoints"])
    return columns


def _run_lengths() -> Any:
    import msgspec

    return msgspec.defstruct("segmentation", [("size", tuple[int, int]), ("counts", str | list[int])], gc=False)


@contextmanager
def _without_collection() -> Iterator[None]:
    """No search for cycles while a million objects without any are made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(path: Path) -> bytes | mmap.mmap:
    """A file's content: mapped, since copying 50 MB costs more than half of what scanning them does."""
    try:
        with path.open("rb") as file:
            try:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (ValueError, OSError):  # empty, or a pipe
                return file.read()
    except OSError as error:
        raise PipelineError(f"{path}: not readable ({error.strerror}); fix: name a file that is") from None


def _decoded(path: Path, data: bytes | mmap.mmap, kind: Any) -> Any:
    import msgspec

    try:
        with _without_collection():
            return msgspec.json.Decoder(kind).decode(data)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        index, _, key = where.rstrip("`").replace("[", "#", 1).partition("]")
        at = f"{path}{index} {key.lstrip('.')}".rstrip()
        raise PipelineError(f"{at}: {what[0].lower()}{what[1:]}; fix: {FIX}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "NaN and Infinity are no numbers of JSON; " if max(map(data.find, (b"NaN", b"Infinity"))) >= 0 else ""
        raise PipelineError(f"{path}: {hint}no JSON ({error}); fix: write it again") from None


def _ids(path: Path, rows: Sequence[Any], what: str) -> np.ndarray:
    ids = np.sort(_integers(rows, "id"))
    for index in np.flatnonzero(ids[1:] == ids[:-1])[:1]:
        raise PipelineError(f"{path} {what}: id {ids[index]} occurs twice; fix: remove one")
    return ids


def _looked_up(path: Path, values: np.ndarray, ids: np.ndarray, what: str, key: str) -> np.ndarray:
    """[N] int64, the position of each value in ascending ids."""
    if len(ids) and ids[0] >= 0 and ids[-1] < MAX_TABLE:
        table = np.full(ids[-1] + 2, -1)
        table[ids] = np.arange(len(ids))
        index = table[np.where((values < 0) | (values > ids[-1]), ids[-1] + 1, values)]
    else:
        index = np.minimum(np.searchsorted(ids, values), max(len(ids) - 1, 0))
        index = np.where(ids[index] == values, index, -1) if len(ids) else np.full(len(values), -1)
    for row in np.flatnonzero(index < 0)[:1]:
        at = f"{path}#{row}" if not what else f"{path} {what}#{row}"
        num = int((index < 0).sum())
        raise PipelineError(
            f"{at} {key}: not in the truth ({values[row]}; {num} such rows); fix: remove or correct them"
        )
    return index


def _integers(rows: Sequence[Any], name: str) -> np.ndarray:
    return np.fromiter(map(attrgetter(name), rows), np.int64, len(rows))


def _floats(rows: Sequence[Any], name: str) -> np.ndarray:
    return np.fromiter(map(attrgetter(name), rows), np.float64, len(rows))


def _numbers(path: Path, rows: Sequence[Any], name: str, size: int, what: str) -> np.ndarray:
    """[N, size] float64 of lists that must have one length."""
    lists = list(map(attrgetter(name), rows))
    for index, length in enumerate(map(len, lists)):
        if length != size:
            at = f"{path}#{index}" if not what else f"{path} {what}#{index}"
            raise PipelineError(f"{at} {name}: {length} numbers, not {size}; fix: {FIX}")
    return np.fromiter(chain.from_iterable(lists), np.float64, size * len(lists)).reshape(len(lists), size)


def _boxes(path: Path, rows: Sequence[Any], what: str) -> np.ndarray:
    return _numbers(path, rows, "bbox", 4, what)


def _points(path: Path, rows: Sequence[Any]) -> np.ndarray:
    size = len(rows[0].keypoints) if rows else 0
    return _numbers(path, rows, "keypoints", size - size % 3, "")


def _by_three(numbers: np.ndarray) -> np.ndarray:
    return numbers.reshape(len(numbers), numbers.shape[1] // 3, 3)


def _truth_masks(path: Path, rows: Sequence[Any], sizes: dict[int, tuple[int, int]]) -> overlaps.Masks:
    from pycocotools import mask as coco_mask

    masks = [row.segmentation for row in rows]
    for index, row in enumerate(rows):
        mask = masks[index]
        if isinstance(mask, list):
            height, width = sizes[row.image_id]
            if not mask or any(len(polygon) < 6 or len(polygon) % 2 for polygon in mask) or not height * width:
                what = "no polygon of three points or more, or the image has no size"
                raise PipelineError(f"{path} annotations#{index} segmentation: {what}; fix: {FIX}")
            corners = np.abs([value for polygon in mask for value in polygon]).max()
            if not corners < 1e6:  # pycocotools crashes on them
                what = f"a corner far outside of the image ({corners:g})"
                raise PipelineError(f"{path} annotations#{index} segmentation: {what}; fix: clip it")
            masks[index] = coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    return _masks(path, masks, "annotations")


def _masks(path: Path, masks: Sequence[Any], what: str) -> overlaps.Masks:
    try:
        pairs = [(m["size"], m["counts"]) if isinstance(m, dict) else (m.size, m.counts) for m in masks]
        sizes, counts = zip(*pairs, strict=True) if pairs else ((), ())
        return overlaps.masks_of_counts(sizes, counts)
    except ValueError as error:
        index, _, fault = str(error).removeprefix("mask ").partition(": ")
        at = f"{path}#{index}" if not what else f"{path} {what}#{index}"
        raise PipelineError(f"{at} segmentation: {fault}; fix: {FIX}") from None


def _is_scanned(data: bytes | mmap.mmap) -> bool:
    """Whether the scanner pays."""
    return len(data) >= SCANNED_FROM or "pipeline.metrics.compiled" in sys.modules


def _scanned_annotations(data: bytes, kind: Kind) -> dict[str, np.ndarray] | None:
    """Columns of annotations that are known to be JSON; None where msgspec should look."""
    from pipeline.metrics.compiled_json import INTEGER, read

    lengths = dict.fromkeys(("image_id", "category_id", "iscrowd", "id"), INTEGER) | {"area": 0, "bbox": 4}
    if kind == "keypoints":
        begin = data.find(b'"keypoints"')
        lengths |= {"num_keypoints": INTEGER, "keypoints": data.count(b",", begin, data.find(b"]", begin)) + 1}
        if lengths["keypoints"] % 3:
            return None
    found = read(data, lengths, is_part=True)
    return found.columns if found else None


def _scanned_results(
    data: bytes | mmap.mmap, kind: Kind, truth: CocoTruth
) -> tuple[dict[str, np.ndarray] | None, overlaps.Masks | None]:
    """Columns of results, and their masks; None where msgspec should look."""
    from pipeline.metrics.compiled_json import INTEGER, MASK, read

    length = {"boxes": 4, "masks": MASK, "keypoints": 0}[kind]
    if kind == "keypoints":
        assert truth.columns.keypoints is not None
        length = 3 * truth.columns.keypoints.shape[1]
        if not length:
            return None, None
    found = read(data, {"image_id": INTEGER, "category_id": INTEGER, "score": 0, KEYS[kind]: length})
    if found is None:
        return None, None
    return found.columns, overlaps.Masks(*found.masks) if found.masks else None
