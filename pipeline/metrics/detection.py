"""COCO's average precision and recall of boxes, computed by pycocotools on checked input."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.metrics import Metric
from pipeline.ops import boxes as box_ops
from pipeline.structures import Objects

METRICS = {
    "map": Metric(True, "average precision, mean over the classes and over IoU .50 to .95 by .05"),
    "map50": Metric(True, "average precision at IoU .50, mean over the classes"),
    "map75": Metric(True, "average precision at IoU .75, mean over the classes"),
    "map_small": Metric(True, "map of objects below 32^2 pixels"),
    "map_medium": Metric(True, "map of objects of 32^2 to 96^2 pixels"),
    "map_large": Metric(True, "map of objects above 96^2 pixels"),
    "mar1": Metric(True, "recall with the best detection of each class in an image, mean as for map"),
    "mar10": Metric(True, "recall with the 10 best detections of each class in an image"),
    "mar100": Metric(True, "recall with the 100 best detections of each class in an image"),
    "mar_small": Metric(True, "mar100 of objects below 32^2 pixels"),
    "mar_medium": Metric(True, "mar100 of objects of 32^2 to 96^2 pixels"),
    "mar_large": Metric(True, "mar100 of objects above 96^2 pixels"),
}
IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALL_LEVELS = np.linspace(0, 1, 101)
AREAS = ("all", "small", "medium", "large")
MAX_DETECTIONS = (1, 10, 100)


@dataclass
class Detections:
    """The boxes found in one image.

    Attributes:
        boxes: [N, 4] float32 xyxy in pixels.
        scores: [N] float32.
        labels: [N] int64.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass
class Matches:
    """Which detections of one image are right, as pycocotools matched them over all areas; what AP is made from.

    Attributes:
        scores: [N] float64, of detections in order of class and falling score.
        labels: [N] int64.
        matched: [N] int64, bit t is set where the detection takes a truth at `IOU_THRESHOLDS[t]`.
        ignored: [N] int64, bit t is set where it counts neither as right nor as wrong (it lies on a crowd).
        truth_labels: [M] int64, of the truths that count (no crowds).
    """

    scores: np.ndarray
    labels: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_labels: np.ndarray


@dataclass
class Result:
    """Everything one evaluation gives.

    Attributes:
        metrics: the figures of `METRICS`; None without truth to find.
        precision: [10, 101, K, 4], interpolated precision by IoU threshold, recall level, class and area; -1 without
            truth of that class and area.
        recall: [10, K, 4, 3], by IoU threshold, class, area and number of detections; -1 likewise.
        matches: one per image.
    """

    metrics: dict[str, float | None]
    precision: np.ndarray
    recall: np.ndarray
    matches: list[Matches]


def evaluate(*, predictions: Sequence[Detections], targets: Sequence[Objects], num_classes: int) -> Result:
    """COCO's evaluation of boxes.

    101-point interpolated precision; at most 100 detections of a class in an image; small, medium and large by the
    annotation's area; a class without truth is left out of the means.

    Args:
        predictions: one per image, with boxes [N, 4], scores [N] and labels [N], after suppression.
        targets: one per image, in the same order.
        num_classes: K.

    Raises:
        ValueError: numbers of images or of boxes differ, or a box or score is not finite (pycocotools would count a
            NaN box as a perfect match).
    """
    from pycocotools.cocoeval import COCOeval

    _check(predictions, targets)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCOeval(_truth(targets, num_classes), _results(predictions, num_classes), "bbox")
        coco.evaluate()
        coco.accumulate()
    precision, recall = coco.eval["precision"][..., 2], coco.eval["recall"]
    figures = [_mean(precision[..., 0]), _mean(precision[0, ..., 0]), _mean(precision[5, ..., 0])]
    figures += [_mean(precision[..., area]) for area in (1, 2, 3)]
    figures += [_mean(recall[..., 0, most]) for most in (0, 1, 2)]
    figures += [_mean(recall[..., area, 2]) for area in (1, 2, 3)]
    return Result(
        dict(zip(METRICS, figures, strict=True)), precision, recall, _matches(coco, len(targets), num_classes)
    )


def per_class(result: Result, classes: list[str]) -> list[dict[str, Any]]:
    """Numbers of objects, AP and AR of each class; None without truth."""
    num_truths = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *(match.truth_labels for match in result.matches)]),
        minlength=len(classes),
    )
    return [
        {
            "class": name,
            "num_truths": int(num_truths[index]),
            "ap": _mean(result.precision[:, :, index, 0]),
            "ap50": _mean(result.precision[0, :, index, 0]),
            "ap75": _mean(result.precision[5, :, index, 0]),
            "ar100": _mean(result.recall[:, index, 0, 2]),
        }
        for index, name in enumerate(classes)
    ]


def precision_recall(result: Result) -> np.ndarray:
    """[K, 101], precision at IoU .5 by class and level of recall (`RECALL_LEVELS`); NaN for a class without truth."""
    curves = result.precision[0, :, :, 0].T
    return np.where(curves < 0, np.nan, curves)


@dataclass
class Outcome:
    """What became of one image's truths and detections at one IoU.

    Attributes:
        right: [N] bool, detections that take a truth.
        wrong: [N] bool, those that take none; a detection on a crowd is neither.
        missed: [M] bool, truths that no detection takes; a crowd cannot be missed.
        near: [M] float32, the highest IoU of each truth with a detection of its class; 0 without one.
    """

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray
    near: np.ndarray


def outcome(*, prediction: Detections, target: Objects, iou_threshold: float = 0.5) -> Outcome:
    """Greedy matching as COCO's: by falling score, each detection takes the free truth of its class it overlaps most.

    Args:
        prediction: boxes [N, 4], scores [N] and labels [N].
        target: M truths.
        iou_threshold: the least overlap of a match.
    """
    boxes, labels = prediction.boxes, prediction.labels
    overlap = box_ops.iou(boxes.astype(np.float64), target.boxes.astype(np.float64))
    overlap[labels[:, None] != target.labels[None, :]] = 0
    free = ~target.iscrowd
    right, wrong = (np.zeros(len(boxes), np.bool_) for _ in range(2))
    for index in np.argsort(-prediction.scores, kind="stable"):
        candidates = np.where(free, overlap[index], 0)
        if candidates.max(initial=0) >= iou_threshold:
            free[candidates.argmax()] = False
            right[index] = True
        else:
            wrong[index] = not _on_crowd(boxes[index], labels[index], target, iou_threshold)
    return Outcome(right, wrong, free, overlap.max(0, initial=0))


def _on_crowd(box: np.ndarray, label: int, target: Objects, threshold: float) -> bool:
    """Whether at least `threshold` of a box lies on one crowd of its class."""
    crowds = target.boxes[target.iscrowd & (target.labels == label)]
    sides = np.minimum(box[2:], crowds[:, 2:]) - np.maximum(box[:2], crowds[:, :2])
    return bool((np.maximum(sides, 0).prod(1) >= threshold * box_ops.area(box)).any())


def _check(predictions: Sequence[Detections], targets: Sequence[Objects]) -> None:
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} images")
    for index, prediction in enumerate(predictions):
        if not len(prediction.boxes) == len(prediction.scores) == len(prediction.labels):
            raise ValueError(f"image {index}: boxes, scores and labels differ in number")
        if not (np.isfinite(prediction.boxes).all() and np.isfinite(prediction.scores).all()):
            raise ValueError(f"image {index}: a box or a score is not finite")


def _coco(annotations: list[dict[str, Any]], num_images: int, num_classes: int) -> Any:
    """Pycocotools' data set; ids of annotations count from 1, because it never matches an annotation 0."""
    from pycocotools.coco import COCO

    coco = COCO()
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
        x1, y1, x2, y2 = annotation["bbox"]
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        annotation.setdefault("area", (x2 - x1) * (y2 - y1))
    coco.dataset = {
        "images": [{"id": index} for index in range(num_images)],
        "categories": [{"id": index} for index in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _truth(targets: Sequence[Objects], num_classes: int) -> Any:
    annotations = [
        {"image_id": image, "bbox": box, "category_id": label, "area": area, "iscrowd": int(iscrowd)}
        for image, target in enumerate(targets)
        for box, label, area, iscrowd in zip(
            target.boxes.tolist(), target.labels.tolist(), target.area.tolist(), target.iscrowd.tolist(), strict=True
        )
    ]
    return _coco(annotations, len(targets), num_classes)


def _results(predictions: Sequence[Detections], num_classes: int) -> Any:
    annotations = [
        {"image_id": image, "bbox": box, "category_id": label, "score": score, "iscrowd": 0}
        for image, prediction in enumerate(predictions)
        for box, label, score in zip(
            prediction.boxes.tolist(), prediction.labels.tolist(), prediction.scores.tolist(), strict=True
        )
    ]
    return _coco(annotations, len(predictions), num_classes)


def _matches(coco: Any, num_images: int, num_classes: int) -> list[Matches]:
    """The matching behind the figures. pycocotools lists class by class, within it area by area, within it images."""
    bits = 1 << np.arange(len(IOU_THRESHOLDS), dtype=np.int64)
    columns: list[list[list[np.ndarray]]] = [[[np.zeros(0, np.int64)] for _ in range(5)] for _ in range(num_images)]
    for label in range(num_classes):
        start = label * len(AREAS) * num_images
        for image, cell in enumerate(coco.evalImgs[start : start + num_images]):
            if cell is None:
                continue
            ignored = np.asarray(cell["dtIgnore"], bool)
            num_truths = int((np.asarray(cell["gtIgnore"]) == 0).sum())
            found = (
                np.asarray(cell["dtScores"], np.float64),
                np.full(len(cell["dtScores"]), label),
                bits @ ((cell["dtMatches"] > 0) & ~ignored),
                bits @ ignored,
                np.full(num_truths, label),
            )
            for column, values in zip(columns[image], found, strict=True):
                column.append(values)
    return [Matches(*(np.concatenate(column) for column in image)) for image in columns]


def _mean(values: np.ndarray) -> float | None:
    """The mean of what is defined, where pycocotools marks the undefined with -1."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else None
