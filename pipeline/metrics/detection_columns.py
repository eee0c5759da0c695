"""Detections and truths: of one image as people write them, and of all images in columns, the form for large sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from pipeline.metrics import overlaps
from pipeline.structures import Objects

KINDS = ("boxes", "masks", "keypoints")
Kind = Literal["boxes", "masks", "keypoints"]


@dataclass
class Detections:
    """What was found in one image; lists and whole numbers become arrays.

    Attributes:
        boxes: [N, 4] xyxy in pixels.
        scores: [N].
        labels: [N] class indices.
        masks: N masks, each [H, W] bool or COCO's run lengths {"size", "counts"}, or None.
        keypoints: [N, P, 3] x, y and a value that is not used, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[Any] | None = None
    keypoints: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.boxes, self.scores, self.labels = _floats(self.boxes), _floats(self.scores), _whole(self.labels)
        if not self.boxes.size:
            self.boxes = self.boxes.reshape(0, 4)
        if self.boxes.shape[1:] != (4,):
            raise ValueError(f"boxes must be [N, 4], got {self.boxes.shape}")


@dataclass
class DetectionColumns:
    """What was found in all images, N detections in columns: the form in which large sets are read and judged.

    Columns of another type are brought to theirs.

    Attributes:
        images: [N] int64, index of the image.
        labels: [N] int64, class indices.
        scores: [N] float64.
        boxes_xywh: [N, 4] float64 left, top, width, height in pixels; COCO's own form, since x + w - x is not always w.
        masks: run lengths, or None.
        keypoints: [N, P, 3] float64, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes_xywh: np.ndarray
    masks: overlaps.Masks | None = None
    keypoints: np.ndarray | None = None

    def __post_init__(self) -> None:
        _bring_to_types(self)


@dataclass
class ObjectColumns:
    """The M truths of all images in columns, brought to their types.

    Attributes:
        images, labels, boxes_xywh, masks, keypoints: as in `DetectionColumns`.
        areas: [M] float64, in pixels.
        iscrowd: [M] bool.
        ignored: [M] bool, further truths that need not be found, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    masks: overlaps.Masks | None = None
    keypoints: np.ndarray | None = None
    ignored: np.ndarray | None = None

    def __post_init__(self) -> None:
        _bring_to_types(self)


def _floats(values: Any) -> np.ndarray:
    """An array of floats; those of less than 64 bits stay."""
    found = np.asarray(values)
    return found if found.dtype.kind == "f" else found.astype(np.float64)


def _whole(values: Any) -> np.ndarray:
    """An array of int64."""
    given = np.asarray(values)
    with np.errstate(invalid="ignore"):  # NaN
        found = given.astype(np.int64, copy=False)
    for index in np.flatnonzero(found != given)[:1] if given.dtype.kind == "f" else ():
        raise ValueError(f"a label or image is no whole number ({given[index]})")
    return found


def _bring_to_types(columns: DetectionColumns | ObjectColumns) -> None:
    """Each column as documented: as indices 0 and 1 would not say what bools say, and narrow integers overflow."""
    for name, values in vars(columns).items():
        if name in ("images", "labels"):
            setattr(columns, name, _whole(values))
        elif name != "masks" and values is not None:
            setattr(columns, name, np.asarray(values, np.bool_ if name in ("iscrowd", "ignored") else np.float64))


def columns_of(predictions: Sequence[Detections], kind: Kind = "boxes") -> DetectionColumns:
    """One prediction per image as columns, with what `kind` needs.

    Raises:
        ValueError: an image's boxes, scores, labels, or masks or keypoints where they are needed, differ in number.
    """
    for index, prediction in enumerate(predictions):
        num = len(prediction.boxes)
        if not num == len(prediction.scores) == len(prediction.labels):
            raise ValueError(f"image {index}: boxes, scores and labels differ in number")
        if kind != "boxes":
            extra = getattr(prediction, kind)
            if (extra is None and num) or (extra is not None and len(extra) != num):
                raise ValueError(f"image {index}: {0 if extra is None else len(extra)} {kind} for {num} detections")
    nums = [len(prediction.boxes) for prediction in predictions]
    boxes = _joined([np.asarray(p.boxes, np.float64).reshape(-1, 4) for p in predictions], (0, 4))
    boxes[:, 2:] -= boxes[:, :2]
    return DetectionColumns(
        images=np.repeat(np.arange(len(nums)), nums),
        labels=_joined([np.asarray(p.labels, np.int64) for p in predictions], (0,)).astype(np.int64),
        scores=_joined([np.asarray(p.scores, np.float64) for p in predictions], (0,)),
        boxes_xywh=boxes,
        masks=_masks([p.masks for p in predictions]) if kind == "masks" else None,
        keypoints=_keypoints([p.keypoints for p in predictions]) if kind == "keypoints" else None,
    )


def columns_of_table(table: pa.Table) -> DetectionColumns:
    """The columns of a run's predictions.arrow: boxes (corners, in float32), scores and labels of each image.

    Raises:
        ValueError: boxes, scores and labels of an image differ in number.
    """
    parts = [table.column(name).combine_chunks() for name in ("boxes", "scores", "labels")]
    nums = [np.asarray(part.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)) for part in parts]
    for index in np.flatnonzero((nums[0] != nums[1]) | (nums[0] != nums[2]))[:1]:
        raise ValueError(f"image {index}: boxes, scores and labels differ in number")
    corners = parts[0].flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    boxes = corners.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return DetectionColumns(
        images=np.repeat(np.arange(len(nums[0])), nums[0]),
        labels=parts[2].flatten().to_numpy(zero_copy_only=False).astype(np.int64),
        scores=parts[1].flatten().to_numpy(zero_copy_only=False).astype(np.float64),
        boxes_xywh=boxes,
    )


def object_columns_of(targets: Sequence[Objects], kind: Kind = "boxes") -> ObjectColumns:
    """One truth per image as columns, with what `kind` needs.

    Raises:
        ValueError: an image with objects has no masks or keypoints where they are needed.
    """
    for index, target in enumerate(targets):
        if kind != "boxes" and getattr(target, kind) is None and len(target):
            raise ValueError(f"image {index}: 0 {kind} for {len(target)} truths")
    nums = [len(target) for target in targets]
    boxes = _joined([np.asarray(t.boxes, np.float64) for t in targets], (0, 4))
    boxes[:, 2:] -= boxes[:, :2]
    return ObjectColumns(
        images=np.repeat(np.arange(len(nums)), nums),
        labels=_joined([np.asarray(t.labels, np.int64) for t in targets], (0,)).astype(np.int64),
        boxes_xywh=boxes,
        areas=_joined([np.asarray(t.area, np.float64) for t in targets], (0,)),
        iscrowd=_joined([np.asarray(t.iscrowd, bool) for t in targets], (0,)).astype(bool),
        masks=_masks([t.masks for t in targets]) if kind == "masks" else None,
        keypoints=_keypoints([t.keypoints for t in targets]) if kind == "keypoints" else None,
    )


def _joined(parts: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.zeros(empty), *parts])


def _masks(parts: Sequence[Sequence[Any] | np.ndarray | None]) -> overlaps.Masks:
    return overlaps.masks_of([mask for part in parts if part is not None for mask in part])


def _keypoints(parts: list[np.ndarray | None]) -> np.ndarray:
    some = [np.asarray(part, np.float64) for part in parts if part is not None and len(part)]
    return np.concatenate(some) if some else np.zeros((0, 0, 3))


Columns = TypeVar("Columns", DetectionColumns, ObjectColumns)


def by_image(columns: Columns) -> tuple[Columns, np.ndarray | None]:
    """Columns in order of images, and where each row was; None: it stayed."""
    if (columns.images[1:] >= columns.images[:-1]).all():
        return columns, None
    order = np.argsort(columns.images, kind="stable")
    rows: dict[str, Any] = {
        name: value if value is None else value.take(order) if name == "masks" else value[order]
        for name, value in vars(columns).items()
    }
    return type(columns)(**rows), order


def check(columns: DetectionColumns | ObjectColumns, num_classes: int, num_images: int, what: str) -> None:
    """Raises a ValueError that names the image of the first row that cannot be."""
    numbers = {name: len(value) for name, value in vars(columns).items() if value is not None}
    if len(set(numbers.values())) > 1:
        raise ValueError(f"{what}s differ in number: {', '.join(f'{n} {name}' for name, n in numbers.items())}")
    boxes = columns.boxes_xywh
    value = columns.scores if isinstance(columns, DetectionColumns) else columns.areas
    finite = bool(np.isfinite(boxes).all() and np.isfinite(value).all())
    faults = {
        "image is not among those to judge": (columns.images < 0) | (columns.images >= num_images),
        "box or score is not finite": np.zeros(0) if finite else ~np.isfinite(boxes.sum(1) + value),
        "box has its corners swapped": (boxes[:, 2] < 0) | (boxes[:, 3] < 0),
        "label is no class": (columns.labels < 0) | (columns.labels >= num_classes),
    }
    if columns.keypoints is not None:
        faults["keypoint is not finite"] = ~np.isfinite(columns.keypoints).all((1, 2))
    for fault, rows in faults.items():
        if rows.any():
            row = int(rows.argmax())
            index = row - int(np.searchsorted(columns.images, columns.images[row]))
            raise ValueError(f"image {columns.images[row]}: {what} {index}: {fault}")
