"""One annotated object as its source gives it to a row of the store: boxes, masks and keypoints, each checked.

Everything is validated here, before pycocotools sees it: it crashes on polygons of huge coordinates, never returns on
NaN, and reads past the end of a run-length code that is too short (observed on 2.0.11).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from pipeline.data.images import SIDEWAYS, turned_array, turned_points
from pipeline.data.records import RawObject
from pipeline.ops import masks as mask_ops

ROUNDING = 0.05  # pixels beyond an edge that are put down to rounding (COCO writes two decimals) and clipped unsaid
FAR = 10  # a polygon that reaches so many image sides beyond the image is a mistake, and would cost much to draw

SINGLE = struct.Struct("4f")  # boxes are stored in single precision
LARGEST = float(np.finfo(np.float32).max)  # and so is every other number; what is larger would become infinite

Note = Callable[[str, str], None]
"""Takes the kind of a finding and what was found, where the annotation is kept."""


class Fault(Exception):
    """An annotation or image that cannot be right.

    Attributes:
        kind: the sort of fault, for counting.
        key: what of the annotation it is in: bbox, mask, label, ...
        what: the fault with its value.
    """

    def __init__(self, kind: str, key: str, what: str) -> None:
        super().__init__(kind, key, what)
        self.kind, self.key, self.what = kind, key, what


@dataclass(frozen=True)
class Frame:
    """The image that annotations lie in.

    Attributes:
        height: in pixels, as the image is shown.
        width: in pixels, as the image is shown.
        turn: EXIF orientation by which annotations are turned; 1 where they are in the shown image's pixels already.
    """

    height: int
    width: int
    turn: int = 1

    @property
    def source_size(self) -> tuple[int, int]:
        """Height and width of the image that the source's annotations lie in."""
        return (self.width, self.height) if self.turn in SIDEWAYS else (self.height, self.width)


def object_row(raw: RawObject, frame: Frame, *, num_classes: int, num_keypoints: int, note: Note) -> dict[str, Any]:
    """The row of one object.

    Args:
        raw: what the source says.
        frame: the image it lies in.
        num_classes: K.
        num_keypoints: P; 0 where the dataset has none.
        note: told of what was changed.

    Raises:
        Fault: the annotation cannot be right.
    """
    row: dict[str, Any] = {
        "label": class_index(raw.label, num_classes, "label"),
        "iscrowd": bool(raw.iscrowd),
        "mask": None,
        "keypoints": None,
    }
    rle = None
    if raw.mask is not None:
        rle = _rle(raw.mask, frame, note)
        row["mask"] = rle["counts"]
    if raw.bbox is not None:
        box = _box(raw.bbox, frame, note)
    elif rle is not None:
        box = mask_ops.box_of(rle)
    else:
        raise Fault("bad box", "bbox", "neither a box nor a mask")
    row["bbox"] = box
    if raw.area is not None:
        if not _is_number(raw.area) or not 0 <= raw.area <= LARGEST:
            raise Fault("bad area", "area", f"not a size in pixels ({raw.area!r})")
        row["area"] = float(raw.area)
    else:
        row["area"] = mask_ops.area_of(rle) if rle is not None else (box[2] - box[0]) * (box[3] - box[1])
    if num_keypoints:
        row["keypoints"] = _keypoints(raw.keypoints, num_keypoints, frame, note)
    elif raw.keypoints is not None:
        raise Fault("bad keypoints", "keypoints", "given, but the dataset names no keypoints")
    return row


def class_index(value: Any, num_classes: int, key: str) -> int:
    """A class index within 0..K-1.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, int | np.integer) or value is True or value is False or not 0 <= value < num_classes:
        raise Fault("unknown class", key, f"no class {value!r} (there are {num_classes}: 0 to {num_classes - 1})")
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _finite(values: Any, kind: str, key: str) -> list[float]:
    """A flat list of finite numbers."""
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str | bytes):
        raise Fault(kind, key, f"not a list of numbers ({_short(values)})")
    for value in values:
        if type(value) not in (float, int) and not _is_number(value):
            raise Fault(kind, key, f"not a number in it ({_short(value)})")
    result = [float(value) for value in values]
    if not all(-LARGEST <= value <= LARGEST for value in result):
        raise Fault(kind, key, f"NaN or infinite in single precision ({_short(list(values))})")
    return result


def _numbers(values: Any, kind: str, key: str) -> np.ndarray:
    """The same as float64."""
    return np.array(_finite(values, kind, key), np.float64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _box(values: Any, frame: Frame, note: Note) -> list[float]:
    """x1, y1, x2, y2 in the shown image, clipped to it."""
    # plain numbers: an array of four is ten times as slow, and a dataset has a million boxes
    box = _finite(values, "bad box", "bbox")
    if len(box) != 4:
        raise Fault("bad box", "bbox", f"{len(box)} numbers where 4 belong ({_short(list(values))})")
    shown = f"x1, y1, x2, y2 = {box[0]:g}, {box[1]:g}, {box[2]:g}, {box[3]:g}"
    if box[2] < box[0] or box[3] < box[1]:
        raise Fault("bad box", "bbox", f"its corners are swapped ({shown})")
    if box[2] == box[0] or box[3] == box[1]:
        raise Fault("zero-area box", "bbox", f"a box without area ({shown})")
    if frame.turn != 1:
        corners = turned_points(np.array(box).reshape(2, 2), frame.turn, frame.height, frame.width)
        box = [*corners.min(0).tolist(), *corners.max(0).tolist()]
    bounds = (frame.width, frame.height, frame.width, frame.height)
    clipped = [min(max(value, 0.0), float(bound)) for value, bound in zip(box, bounds, strict=True)]
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        size = f"the image is {frame.width} x {frame.height}"
        raise Fault("box outside", "bbox", f"wholly outside the image ({shown}; {size})")
    if max(abs(new - old) for new, old in zip(clipped, box, strict=True)) > ROUNDING:
        note("box partly outside", f"clipped to the image ({shown}; the image is {frame.width} x {frame.height})")
    x1, y1, x2, y2 = SINGLE.unpack(SINGLE.pack(*clipped))
    if x2 <= x1 or y2 <= y1:
        raise Fault("zero-area box", "bbox", f"a box without area in single precision ({shown})")
    return [x1, y1, x2, y2]


def _rle(mask: Any, frame: Frame, note: Note) -> dict[str, Any]:
    """A mask of any form as a checked compressed run-length code in the shown image."""
    if isinstance(mask, np.ndarray):
        rle = _from_array(mask, frame)
    elif isinstance(mask, dict):
        rle = _from_runs(mask, frame)
    else:
        rle = _from_polygons(mask, frame, note)
    if frame.turn != 1 and not isinstance(mask, Sequence):
        height, width = frame.source_size
        rle = mask_ops.encode(turned_array(mask_ops.decode(rle["counts"], height, width), frame.turn))
    if not mask_ops.area_of(rle):
        raise Fault("empty mask", "mask", "shows no pixel of the image")
    return rle


def _from_array(mask: np.ndarray, frame: Frame) -> dict[str, Any]:
    if mask.shape != frame.source_size:
        raise Fault("bad mask", "mask", f"of size {mask.shape}, the image is {frame.source_size}")
    return mask_ops.encode(mask.astype(bool))


def _from_runs(mask: dict[str, Any], frame: Frame) -> dict[str, Any]:
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, Sequence) or tuple(size) != frame.source_size:
        raise Fault("bad mask", "mask", f"run-length code of size {size!r}, the image is {list(frame.source_size)}")
    height, width = frame.source_size
    if isinstance(counts, str | bytes):
        data = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
        runs = mask_ops.runs_of(data)
    else:
        numbers = _numbers(counts, "bad mask", "mask")
        runs = [int(v) for v in numbers]
        if (numbers != runs).any():
            raise Fault("bad mask", "mask", "run lengths that are not whole numbers")
        data = None
    if runs is None or any(run < 0 for run in runs):
        raise Fault("bad mask", "mask", f"not a run-length code ({_short(counts)})")
    if sum(runs) != height * width:
        raise Fault("bad mask", "mask", f"run lengths of {sum(runs)} pixels, the image has {height * width}")
    return {"size": [height, width], "counts": data} if data is not None else mask_ops.from_runs(runs, height, width)


def _from_polygons(polygons: Any, frame: Frame, note: Note) -> dict[str, Any]:
    if not isinstance(polygons, Sequence) or isinstance(polygons, str | bytes) or not len(polygons):
        raise Fault("bad mask", "mask", f"neither polygons nor a run-length code ({_short(polygons)})")
    checked = []
    for number, polygon in enumerate(polygons):
        points = _numbers(polygon, "bad mask", "mask")
        if len(points) % 2 or len(points) < 6:
            what = "an odd number of coordinates" if len(points) % 2 else "fewer than 3 points"
            raise Fault("bad mask", "mask", f"polygon {number} has {what} ({len(points)} numbers)")
        points = turned_points(points.reshape(-1, 2), frame.turn, frame.height, frame.width)
        side = max(frame.width, frame.height)
        if np.abs(points).max() > FAR * side:
            raise Fault(
                "bad mask", "mask", f"polygon {number} lies far outside (a coordinate of {np.abs(points).max():g})"
            )
        beyond = np.maximum(-points, points - [frame.width, frame.height]).max()
        if beyond > 1:  # a pixel beyond is a matter of counting from 0 or 1
            note(
                "mask partly outside",
                f"polygon {number} reaches {beyond:.1f} pixels beyond the image; the rest is kept",
            )
        checked.append(points.ravel().tolist())
    return mask_ops.from_polygons(checked, frame.height, frame.width)


def _keypoints(values: Any, num: int, frame: Frame, note: Note) -> list[float]:
    """[3 P] x, y, visibility; all absent where the source has none for this object."""
    if values is None:
        return [0.0] * (3 * num)
    points = _numbers(values, "bad keypoints", "keypoints")
    if len(points) != 3 * num:
        raise Fault("bad keypoints", "keypoints", f"{len(points)} numbers where 3 x {num} belong")
    points = points.reshape(num, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise Fault(
            "bad keypoints", "keypoints", f"a visibility that is not 0, 1 or 2 ({_short(points[:, 2].tolist())})"
        )
    there = points[:, 2] > 0
    points[there, :2] = turned_points(points[there, :2], frame.turn, frame.height, frame.width)
    beyond = there & ((points[:, :2] < -1) | (points[:, :2] > [frame.width + 1, frame.height + 1])).any(1)
    if beyond.any():
        note("keypoint outside", f"keypoint {int(np.flatnonzero(beyond)[0])} lies outside the image; kept")
    return [float(v) for v in points.ravel()]
