"""Average precision and recall of boxes, masks and keypoints: exact, fast, and by a named rule.

from pipeline.metrics.detection import Detections, evaluate_detections
result = evaluate_detections(predictions=predictions, targets=targets, num_classes=80)
result.metrics["map"], result.protocol
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, average_precision, bootstrap, overlaps, resampling
from pipeline.metrics.detection_columns import (
    KINDS,
    DetectionColumns,
    Detections,
    Kind,
    ObjectColumns,
    by_image,
    check,
    columns_of,
    columns_of_table,
    object_columns_of,
)
from pipeline.metrics.detection_confusion import Outcome, outcome
from pipeline.metrics.matching import Found, Grid, Matched, Overlap, Truths, match, match_best
from pipeline.structures import Objects

__all__ = [
    "AREAS",
    "IOU_THRESHOLDS",
    "KEYPOINT_METRICS",
    "KINDS",
    "MAX_DETECTIONS",
    "METRICS",
    "DetectionColumns",
    "Detections",
    "Federated",
    "Kind",
    "Matches",
    "ObjectColumns",
    "Outcome",
    "OverConfidence",
    "Result",
    "by_image",
    "coco_figures",
    "columns_of",
    "columns_of_table",
    "evaluate_detections",
    "object_columns_of",
    "outcome",
    "over_confidence",
    "per_class",
    "per_image",
    "precision_recall",
    "protocol",
    "resampled",
]

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
KEYPOINT_METRICS = {
    "map": Metric(True, "average precision, mean over the classes and over OKS .50 to .95 by .05"),
    "map50": Metric(True, "average precision at OKS .50, mean over the classes"),
    "map75": Metric(True, "average precision at OKS .75, mean over the classes"),
    "map_medium": Metric(True, "map of objects of 32^2 to 96^2 pixels"),
    "map_large": Metric(True, "map of objects above 96^2 pixels"),
    "mar20": Metric(True, "recall with the 20 best detections of each class in an image, mean as for map"),
    "mar20_oks50": Metric(True, "mar20 at OKS .50"),
    "mar20_oks75": Metric(True, "mar20 at OKS .75"),
    "mar_medium": Metric(True, "mar20 of objects of 32^2 to 96^2 pixels"),
    "mar_large": Metric(True, "mar20 of objects above 96^2 pixels"),
}
IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""Least and greatest area in pixels, both included: an object of just 32^2 pixels is small and medium."""
MAX_DETECTIONS = (1, 10, 100)
COMPILED_FROM = 2_000_000
"""Detections from which numba is worth the second that it takes to load."""


@dataclass
class Federated:
    """LVIS: which classes were looked for in an image (Gupta, Dollar, Girshick 2019, section 2).

    Attributes:
        negatives: for each image the classes known to be absent. Detections of a class that is neither here nor among
            the image's truths are not judged.
        not_exhaustive: for each image the classes of which not every object is annotated: a detection of these that
            matches none is not wrong.
        frequency: for each class "r" (rare), "c" (common) or "f" (frequent), or None.
        max_per_image: detections of an image that are judged, the best of all classes.
    """

    negatives: Sequence[Sequence[int]]
    not_exhaustive: Sequence[Sequence[int]]
    frequency: Sequence[str] | None = None
    max_per_image: int = 300


@dataclass
class Matches:
    """The outcome of matching by image: what all figures can be computed from again, for any choice of images.

    Within an image detections are by class and falling score. Bit `area * T + t` of a mask is for the area range and
    IoU threshold of these numbers.

    Attributes:
        offsets: [I + 1] int64, where the detections of each image start.
        indices: [N] int64, row of each detection in the columns that were given, or would be made of what was.
        labels, scores: [N].
        matched: [N] int64, bits at which it takes a truth.
        ignored: [N] int64, bits at which it counts neither as right nor as wrong.
        truth_offsets: [I + 1] int64.
        truth_labels: [M] int64.
        truth_ranges: [M] uint8, bit `area` is set where the truth is to be found; a crowd has none.
    """

    offsets: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_offsets: np.ndarray
    truth_labels: np.ndarray
    truth_ranges: np.ndarray


@dataclass
class Result:
    """Everything one evaluation gives.

    Attributes:
        metrics: the figures by name; None where there is nothing to find.
        ap: [T, K] average precision by threshold and class; NaN without truth.
        num_truths: [K] int64, truths to be found.
        rule: a key of `average_precision.RULES`.
        protocol: the rules behind the figures, as pairs of a name and a value.
        thresholds: [T] float64, of IoU or OKS.
        max_detections: D limits; None without one.
        curves: precision [T, R, K, A, D], recall [T, K, A, D] and scores; NaN without truth; None if not rule coco.
    """

    metrics: dict[str, float | None]
    ap: np.ndarray
    num_truths: np.ndarray
    rule: str
    protocol: list[tuple[str, Any]]
    thresholds: np.ndarray
    max_detections: tuple[int, ...] | None
    curves: average_precision.Curves | None = None
    _parts: tuple[Found, Truths, Grid, Matched, int, np.ndarray | None] | None = field(default=None, repr=False)

    @cached_property
    def matches(self) -> Matches:
        """The matches behind the figures; only of rule coco."""
        if self._parts is None:
            raise ValueError(f"rule {self.rule} keeps no matches; fix: evaluate with rule coco")
        found, truths, grid, matched, num_images, places = self._parts
        images = found.images[matched.indices]
        order = np.argsort(images, kind="stable")
        indices = matched.indices[order]
        ranges = grid.of_area & -grid.of_area
        counted = grid.outside(truths.areas)[:, None] & ranges == 0
        counted[truths.ignored] = False
        steps = np.arange(num_images + 1)
        return Matches(
            offsets=np.searchsorted(images[order], steps),
            indices=indices if places is None else places[indices],
            labels=found.labels[indices],
            scores=found.scores[indices],
            matched=matched.matched[order],
            ignored=matched.ignored[order],
            truth_offsets=np.searchsorted(truths.images, steps),
            truth_labels=truths.labels,
            truth_ranges=(counted << np.arange(len(ranges))).sum(1).astype(np.uint8),
        )


def evaluate_detections(
    *,
    predictions: Sequence[Detections] | DetectionColumns,
    targets: Sequence[Objects] | ObjectColumns,
    num_classes: int,
    num_images: int | None = None,
    kind: Kind = "boxes",
    rule: str = "coco",
    iou_thresholds: Sequence[float] | None = None,
    max_detections: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    federated: Federated | None = None,
    compiled: bool | None = None,
) -> Result:
    """Judges detections against the truth.

    Args:
        predictions: one per image after suppression, or all in columns.
        targets: one per image in the same order, or all in columns.
        num_classes: K.
        num_images: I; needed for columns only.
        kind: what overlaps: boxes, masks or keypoints.
        rule: a key of `average_precision.RULES`. `coco` gives COCO's figures, equal to pycocotools; the others average
            precision alone, matched as each is published: VOC lets a detection compete only for the truth it overlaps
            most and takes crowds for "difficult", overlapped as all others.
        iou_thresholds: ascending; COCO's ten, or .5 by the rules of VOC and YOLO.
        max_detections: of each class in an image, ascending; the last is the most that is judged. COCO's 1, 10, 100
            (keypoints: 20); no limit by the rules of VOC and YOLO.
        sigmas: of the keypoints; COCO's where there are 17.
        federated: for data sets such as LVIS, where not every class is annotated in every image.
        compiled: whether numba does the loops; None: where the set is large. Results are the same to the bit.

    Raises:
        ValueError: what cannot be judged: numbers that differ, a box or score that is not finite (pycocotools counts a
            NaN box as a perfect match), a box whose corners are swapped, a label that is no class, a missing mask or
            keypoints, a mask whose run lengths are not those of its size; thresholds or limits that do not ascend, a
            threshold outside of 0..1.
    """
    if rule not in average_precision.RULES:
        raise ValueError(f"no rule {rule!r}; there are {', '.join(average_precision.RULES)}")
    for name, values in (("iou_thresholds", iou_thresholds), ("max_detections", max_detections)):
        if values is not None and not (len(values) and (np.diff(values) > 0).all()):
            raise ValueError(f"{name} {list(values)} do not ascend; fix: give one or more, each above the one before")
    if iou_thresholds is not None and not 0 < iou_thresholds[0] <= iou_thresholds[-1] <= 1:
        raise ValueError(f"iou_thresholds {list(iou_thresholds)} must be above 0 and at most 1")
    if max_detections is not None and max_detections[0] < 1:
        raise ValueError(f"max_detections {list(max_detections)} must be 1 or more")
    if isinstance(predictions, DetectionColumns) or isinstance(targets, ObjectColumns):
        if num_images is None:
            raise ValueError("columns say nothing of images without objects; fix: give num_images")
    elif len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} images")
    else:
        num_images = len(targets)
    shown = predictions if isinstance(predictions, DetectionColumns) else columns_of(predictions, kind)
    truth = targets if isinstance(targets, ObjectColumns) else object_columns_of(targets, kind)
    shown, places = by_image(shown)
    truth, _ = by_image(truth)
    check(shown, num_classes, num_images, "prediction")
    check(truth, num_classes, num_images, "target")
    if compiled is None:
        compiled = len(shown.images) >= COMPILED_FROM or "pipeline.metrics.compiled" in sys.modules
    overlap, areas, bare = _overlap(shown, truth, kind, sigmas, rule, compiled)
    ignored = truth.iscrowd | bare if truth.ignored is None else truth.iscrowd | bare | truth.ignored
    found = Found(shown.images, shown.labels, shown.scores, areas)
    truths = Truths(truth.images, truth.labels, truth.areas, truth.iscrowd, ignored)
    if rule != "coco":
        thresholds = np.array((0.5,) if iou_thresholds is None else iou_thresholds, np.float64)
        most = None if max_detections is None else max_detections[-1]
        return _by_other_rule(found, truths, overlap, rule, kind, thresholds, most, num_images, num_classes)
    areas_used = {name: ends for name, ends in AREAS.items() if kind != "keypoints" or name != "small"}
    if max_detections is None:
        max_detections = (20,) if kind == "keypoints" else MAX_DETECTIONS
        if federated is not None:
            max_detections = (federated.max_per_image,)
    grid = Grid(
        np.linspace(0.5, 0.95, 10) if iou_thresholds is None else np.array(iou_thresholds, np.float64),
        np.array(list(areas_used.values()), np.float64),
    )
    if federated is not None:
        kept = _judged(found, truths, federated, num_images, num_classes)
        places = np.flatnonzero(kept) if places is None else places[kept]
        exempt = _pairs_in(found.images[kept], found.labels[kept], federated.not_exhaustive, num_classes)
        found = Found(found.images[kept], found.labels[kept], found.scores[kept], found.areas[kept], exempt)
        overlap = _of_kept(overlap, np.flatnonzero(kept))
    matched = match(
        found,
        truths,
        overlap,
        grid,
        num_images=num_images,
        num_classes=num_classes,
        max_detections=max_detections[-1],
        compiled=compiled,
    )
    curves = average_precision.accumulate(
        matched,
        found.scores[matched.indices],
        num_thresholds=len(grid.thresholds),
        max_detections=tuple(max_detections),
        compiled=compiled,
    )
    limits = tuple(max_detections)
    metrics = coco_figures(curves, grid.thresholds, tuple(areas_used), limits, kind)
    if federated is not None and federated.frequency is not None:
        for letter, name in (("r", "rare"), ("c", "common"), ("f", "frequent")):
            chosen = np.array([value == letter for value in federated.frequency], bool)
            metrics[f"map_{name}"] = _mean(curves.final[:, :, chosen, 0])
    return Result(
        metrics=metrics,
        ap=curves.final[..., 0].mean(1),
        num_truths=matched.num_truths[:, 0],
        rule=rule,
        protocol=protocol(kind, rule, grid.thresholds, limits, federated),
        thresholds=grid.thresholds,
        max_detections=limits,
        curves=curves,
        _parts=(found, truths, grid, matched, num_images, places),
    )


def coco_figures(
    curves: average_precision.Curves,
    thresholds: np.ndarray,
    areas: tuple[str, ...],
    max_detections: tuple[int, ...],
    kind: str = "boxes",
) -> dict[str, float | None]:
    """COCO's figures, twelve for boxes and masks, ten for keypoints, in its order; None where undefined."""
    precision, recall = curves.final, curves.recall
    singles = _singles(thresholds)
    figures = {"map": _mean(precision[..., 0])}
    figures |= {f"map{share}": _mean(precision[index, ..., 0]) for share, index in singles.items()}
    figures |= {f"map_{name}": _mean(precision[..., area]) for area, name in enumerate(areas) if area}
    figures |= {f"mar{most}": _mean(recall[..., 0, index]) for index, most in enumerate(max_detections)}
    if kind == "keypoints":
        at = f"mar{max_detections[-1]}_oks"
        figures |= {f"{at}{share}": _mean(recall[index, ..., 0, -1]) for share, index in singles.items()}
    figures |= {f"mar_{name}": _mean(recall[..., area, -1]) for area, name in enumerate(areas) if area}
    return figures


def _singles(thresholds: np.ndarray) -> dict[int, int]:
    """Those of IoU .50 and .75, in hundredths, that are among the thresholds, and their places."""
    return {share: index for share in (50, 75) for index in np.flatnonzero(thresholds == share / 100).tolist()}


def protocol(
    kind: str,
    rule: str,
    thresholds: np.ndarray,
    max_detections: tuple[int, ...] | None,
    federated: Federated | None = None,
) -> list[tuple[str, Any]]:
    """The rules behind the figures in words."""
    overlap = {"boxes": "IoU of boxes", "masks": "IoU of masks", "keypoints": "OKS of keypoints"}[kind]
    at = f"{thresholds[0]:.2f}" + (f" to {thresholds[-1]:.2f}, {len(thresholds)} steps" if len(thresholds) > 1 else "")
    pairs: list[tuple[str, Any]] = [("rule", average_precision.RULES[rule]), ("overlap", f"{overlap} from {at}")]
    if rule in ("coco", "trapezoid"):
        matching = "by falling score, each detection takes the free truth it overlaps most; crowds are ignored"
    else:
        matching = "each detection competes for the truth it overlaps most; a crowd is VOC's difficult, ignored"
    pairs.append(("matching", matching))
    most = f"{max_detections[-1]} of each class in an image" if max_detections else "all"
    if federated is not None:
        most = f"{federated.max_per_image} of an image, of the classes that were looked for in it"
    pairs.append(("max_detections_judged", most))
    if rule == "coco":
        pairs.append(
            ("area", "of a truth the annotation's, of a detection its own; small to 32^2, medium to 96^2 pixels")
        )
    pairs.append(("mean", "over the classes with truth; undefined without any"))
    return pairs


def per_image(result: Result) -> dict[str, pa.Array]:
    """The matches as columns of a table with one row per image: all that `resampled` needs.

    Scores are kept in float32 where that loses nothing. Parquet stores the masks by their few different values.
    """
    matches = result.matches
    narrow = matches.scores.astype(np.float32)
    scores = narrow if (narrow == matches.scores).all() else matches.scores

    def lists(offsets: np.ndarray, values: np.ndarray) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))

    return {
        "scores": lists(matches.offsets, scores),
        "labels": lists(matches.offsets, matches.labels.astype(np.int32)),
        "matched": lists(matches.offsets, matches.matched),
        "ignored": lists(matches.offsets, matches.ignored),
        "truth_labels": lists(matches.truth_offsets, matches.truth_labels.astype(np.int32)),
        "truth_ranges": lists(matches.truth_offsets, matches.truth_ranges),
    }


def resampled(
    table: pa.Table,
    weights: np.ndarray,
    *,
    kind: Kind = "boxes",
    names: Sequence[str] | None = None,
    compiled: bool | None = None,
) -> dict[str, np.ndarray]:
    """COCO's figures where each image counts as often as its weight says.

    Equal to an evaluation of the images repeated so often, image by image.

    Args:
        table: with the columns of `per_image`, made with COCO's thresholds.
        weights: [R, I] whole numbers.
        kind: what overlapped; keypoints have other figures.
        names: the figures that are wanted; None: all of `METRICS`.
        compiled: whether numba does the loops; None: where the set is large.

    Returns:
        [R] float64 for each figure, NaN where it is undefined.
    """
    areas = [name for name in AREAS if kind != "keypoints" or name != "small"]
    most = (20,) if kind == "keypoints" else MAX_DETECTIONS
    columns = {name: table.column(name).combine_chunks() for name in ("scores", "truth_labels")}
    nums, truth_nums = (column.value_lengths().to_numpy(zero_copy_only=False) for column in columns.values())

    def flat(name: str) -> np.ndarray:
        return np.asarray(table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False))

    steps = np.arange(table.num_rows)
    statistics = resampling.Statistics(
        num_images=table.num_rows,
        num_thresholds=len(IOU_THRESHOLDS),
        num_areas=len(areas),
        images=np.repeat(steps, nums),
        labels=flat("labels").astype(np.int64),
        scores=flat("scores"),
        matched=flat("matched"),
        ignored=flat("ignored"),
        truth_images=np.repeat(steps, truth_nums),
        truth_labels=flat("truth_labels").astype(np.int64),
        truth_ranges=flat("truth_ranges"),
    )
    whole = names is not None and all(name.rstrip("0123456789") in ("map", "mar") for name in names)
    drawn = resampling.resample(statistics, weights, most, areas=(0,) if whole else None, compiled=compiled)
    precision, recall = drawn.precision, drawn.recall
    figures = {"map": precision[..., 0], "map50": precision[:, :1, :, 0], "map75": precision[:, 5:6, :, 0]}
    figures |= {f"map_{name}": precision[..., area] for area, name in enumerate(areas) if area}
    figures |= {f"mar{num}": recall[..., 0, index] for index, num in enumerate(most)}
    if kind == "keypoints":
        figures |= {"mar20_oks50": recall[:, :1, :, 0, 0], "mar20_oks75": recall[:, 5:6, :, 0, 0]}
    figures |= {f"mar_{name}": recall[..., area, -1] for area, name in enumerate(areas) if area}
    return {name: bootstrap.defined_mean(values) for name, values in figures.items() if names is None or name in names}


def per_class(result: Result, classes: list[str]) -> list[dict[str, Any]]:
    """Number of truths, AP (also at IoU .50 and .75, if judged there) and AR of each class; None without truth."""
    curves, limits = _curves(result), result.max_detections or ()
    return [
        {
            "class": name,
            "num_truths": int(result.num_truths[index]),
            "ap": _mean(curves.final[:, :, index, 0]),
            **{f"ap{share}": _mean(curves.final[at, :, index, 0]) for share, at in _singles(result.thresholds).items()},
            **{f"ar{most}": _mean(curves.recall[:, index, 0, -1]) for most in limits[-1:]},
        }
        for index, name in enumerate(classes)
    ]


def precision_recall(result: Result, iou_threshold: float = 0.5) -> np.ndarray:
    """[K, 101], precision by class and level of recall (0, .01, ... 1); NaN without truth.

    Raises:
        ValueError: nothing was judged at that threshold.
    """
    for place in np.flatnonzero(result.thresholds == iou_threshold):
        return _curves(result).final[place, :, :, 0].T
    raise ValueError(f"no IoU threshold {iou_threshold} among {', '.join(map(str, result.thresholds.tolist()))}")


@dataclass
class OverConfidence:
    """What a threshold on the score gives, by class; the last row is all classes together.

    Attributes:
        scores: [S] the thresholds, ascending.
        precision: [K + 1, S], share of the detections from that score on that are right; NaN without any.
        recall: [K + 1, S], share of the truths that they find; NaN without truth.
        f1: [K + 1, S], 2 TP / (detections + truths); NaN without truth.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def best(self) -> list[tuple[float, float] | None]:
        """For each row the least score of the highest F1, and that F1; None without truth."""
        return [
            None if np.isnan(row).all() else (float(self.scores[np.nanargmax(row)]), float(np.nanmax(row)))
            for row in self.f1
        ]


def over_confidence(result: Result, scores: np.ndarray | None = None, threshold: int = 0) -> OverConfidence:
    """Precision, recall and F1 of the detections that reach a score.

    Args:
        result: of rule coco.
        scores: [S] ascending; None: 0, .01, ... 1.
        threshold: number of the IoU threshold.
    """
    scores = np.linspace(0, 1, 101) if scores is None else np.asarray(scores)
    matches, num_classes = result.matches, len(result.num_truths)
    bit = 1 << threshold
    right = matches.matched & ~matches.ignored & bit != 0
    counted = matches.ignored & bit == 0
    found, shown = (
        _at_least(matches.labels[chosen], matches.scores[chosen], scores, num_classes) for chosen in (right, counted)
    )
    truths = np.append(result.num_truths, result.num_truths.sum())[:, None]
    nothing = np.full(found.shape, np.nan)
    return OverConfidence(
        scores,
        np.divide(found, shown, out=nothing.copy(), where=shown > 0),
        np.divide(found, truths, out=nothing.copy(), where=truths > 0),
        np.divide(2 * found, shown + truths, out=nothing.copy(), where=truths > 0),
    )


def _at_least(labels: np.ndarray, values: np.ndarray, scores: np.ndarray, num_classes: int) -> np.ndarray:
    """[K + 1, S], how many values of each class, and of all, reach each score."""
    step = np.searchsorted(scores, values, side="right")
    counts = np.bincount(labels * (len(scores) + 1) + step, minlength=num_classes * (len(scores) + 1))
    table = counts.reshape(num_classes, -1)[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
    return np.vstack([table, table.sum(0)])


def _curves(result: Result) -> average_precision.Curves:
    if result.curves is None:
        raise ValueError(f"rule {result.rule} has no curves; fix: evaluate with rule coco")
    return result.curves


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _overlap(
    shown: DetectionColumns, truth: ObjectColumns, kind: str, sigmas: Sequence[float] | None, rule: str, compiled: bool
) -> tuple[Overlap, np.ndarray, np.ndarray]:
    """The overlap of pairs, the area of each detection, and which truths show nothing that could be found."""
    nothing = np.zeros(len(truth.images), bool)
    crowds = nothing if rule.startswith("voc") else truth.iscrowd  # a difficult object overlaps as all others
    if kind == "boxes":
        boxes, truth_boxes = shown.boxes_xywh, truth.boxes_xywh
        if rule == "voc_all_devkit":
            pixel = np.array([0, 0, 1, 1])
            boxes, truth_boxes = boxes + pixel, truth_boxes + pixel
        overlap = overlaps.of_boxes(boxes, truth_boxes, crowds, compiled=compiled)
        return overlap, boxes[:, 2] * boxes[:, 3], nothing
    if kind == "masks":
        if shown.masks is None or truth.masks is None:
            raise ValueError("masks are to be judged and there are none")
        return overlaps.of_masks(shown.masks, truth.masks, crowds), shown.masks.areas.astype(np.float64), nothing
    if shown.keypoints is None or truth.keypoints is None:
        raise ValueError("keypoints are to be judged and there are none")
    num = max(shown.keypoints.shape[1], truth.keypoints.shape[1])
    used = np.asarray(sigmas if sigmas is not None else overlaps.COCO_SIGMAS)
    if len(used) != num and num:
        raise ValueError(f"{len(used)} sigmas for {num} keypoints; fix: give one for each")
    keypoints = shown.keypoints if len(shown.keypoints) else np.zeros((0, len(used), 3))
    targets = truth.keypoints if len(truth.keypoints) else np.zeros((0, len(used), 3))
    if keypoints.shape[1] != targets.shape[1]:
        raise ValueError(f"{keypoints.shape[1]} keypoints of detections, {targets.shape[1]} of the truth")
    extents = overlaps.extent(keypoints, compiled=compiled)
    overlap = overlaps.of_keypoints(
        keypoints, targets, truth.boxes_xywh, truth.areas, used, extents=extents, compiled=compiled
    )
    areas = np.prod(extents[:, 2:] - extents[:, :2], axis=1)
    return overlap, areas, np.asarray(~(targets[..., 2] > 0).any(1))


def _judged(found: Found, truths: Truths, federated: Federated, num_images: int, num_classes: int) -> np.ndarray:
    """[N] bool, the best detections of each image, as far as their class was looked for there."""
    order = np.lexsort((-found.scores, found.images))
    place = np.arange(len(found)) - np.searchsorted(found.images, found.images[order])
    kept = np.zeros(len(found), bool)
    kept[order[place < federated.max_per_image]] = True
    negative = _pairs_in(found.images, found.labels, federated.negatives, num_classes)
    cells = found.images * num_classes + found.labels
    return kept & (negative | np.isin(cells, truths.images * num_classes + truths.labels))


def _pairs_in(images: np.ndarray, labels: np.ndarray, classes: Sequence[Sequence[int]], num_classes: int) -> np.ndarray:
    """[N] bool, whether the class is among those of the image."""
    listed = [image * num_classes + label for image, labels in enumerate(classes) for label in labels]
    return np.isin(images * num_classes + labels, np.array(listed, np.int64))


def _of_kept(overlap: Overlap, kept: np.ndarray) -> Overlap:
    return lambda index, truth, least: overlap(kept[index], truth, least)


def _by_other_rule(
    found: Found,
    truths: Truths,
    overlap: Overlap,
    rule: str,
    kind: str,
    thresholds: np.ndarray,
    most: int | None,
    num_images: int,
    num_classes: int,
) -> Result:
    """Average precision alone, at each threshold."""
    if rule == "trapezoid":
        grid = Grid(thresholds, np.array([AREAS["all"]], np.float64))
        limit = most or max(1, len(found))
        matched = match(
            found, truths, overlap, grid, num_images=num_images, num_classes=num_classes, max_detections=limit
        )
        bits = 1 << np.arange(len(thresholds))[:, None]
        right, ignored, starts = matched.matched & bits != 0, matched.ignored & bits != 0, matched.starts
    else:
        right, ignored, starts = match_best(found, truths, overlap, thresholds, num_classes, most)
    counted = ~truths.ignored & (truths.areas <= AREAS["all"][1]) if rule == "trapezoid" else ~truths.ignored
    num_truths = np.bincount(truths.labels[counted], minlength=num_classes)
    ap = np.full((len(thresholds), num_classes), np.nan)
    for label in np.flatnonzero(num_truths):
        here = slice(starts[label], starts[label + 1])
        for index in range(len(thresholds)):
            flags = right[index, here][~ignored[index, here]]
            ap[index, label] = average_precision.integrate(flags, int(num_truths[label]), rule)
    names = [f"map{round(100 * threshold)}" for threshold in thresholds]
    metrics = {"map": _mean(ap)} if len(thresholds) > 1 else {}
    metrics |= {name: _mean(ap[index]) for index, name in enumerate(names)}
    limits = (most,) if most else None
    return Result(metrics, ap, num_truths, rule, protocol(kind, rule, thresholds, limits), thresholds, limits)
