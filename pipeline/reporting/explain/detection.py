"""A detector's number: boxes on their way to it, outcomes by class, and AP by every other rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from pipeline.metrics import average_precision
from pipeline.metrics.detection import AREAS, MAX_DETECTIONS, Detections, Result, evaluate_detections
from pipeline.ops import boxes as box_ops
from pipeline.params import DetectionEvaluation, Run
from pipeline.reporting.explain.parts import Dialect, Explanation, shown
from pipeline.reporting.verdicts import in_order
from pipeline.reporting.verdicts.detection import detections_of, objects_of
from pipeline.reporting.verdicts.suppression import described, suppressed
from pipeline.structures import Objects


def explain(entry: Run, name: str, metric: str) -> Explanation:
    """From the run's predictions; without them nothing but why."""
    evaluation = entry.evaluation
    assert isinstance(evaluation, DetectionEvaluation)
    try:
        split = Store(paths.raw(entry.dataset)).split(entry.prediction.split)
        fix = f"dvc pull, or dvc repro predict@{name}"
        predictions = in_order(paths.predictions(name), split.column("image_id"), fix)
    except PipelineError as error:
        return Explanation([], [], f"counts and dialects need the predictions: {error}")
    classes = split.info.classes
    raw = detections_of(predictions, len(classes))
    kept = suppressed(raw, evaluation)
    targets = [objects_of(rows) for rows in split.column("objects")]
    result = evaluate_detections(predictions=kept, targets=targets, num_classes=len(classes))
    num_crowds = sum(int(target.iscrowd.sum()) for target in targets)
    num_raw = sum(len(one.scores) for one in raw)
    num_likely = sum(int((one.scores >= evaluation.score_threshold).sum()) for one in raw)
    num_kept = sum(len(one.scores) for one in kept)
    judged = int(result.matches.offsets[-1])
    lines = [
        f"{len(targets)} images, {int(result.num_truths.sum())} truths to be found, {num_crowds} crowds",
        f"{num_raw} raw boxes, {num_likely} of them score {evaluation.score_threshold} or more",
        f"{num_kept} left after suppression ({described(evaluation)}), at most {evaluation.max_detections} of an image",
        f"{judged} judged, at most {MAX_DETECTIONS[-1]} of a class in an image",
        "",
        *_per_class(result, classes, metric),
    ]
    return Explanation(lines, list(_dialects(kept, targets, len(classes), metric)))


def _per_class(result: Result, classes: list[str], metric: str) -> Iterator[str]:
    """A row for each class at the threshold and of the sizes that the metric is about."""
    area = next((index for index, name in enumerate(AREAS) if metric.endswith(f"_{name}")), 0)
    threshold = 5 if metric == "map75" else 0
    bit = 1 << (area * 10 + threshold)
    matches, curves = result.matches, result.curves
    assert curves is not None
    right = (matches.matched & bit > 0) & (matches.ignored & bit == 0)
    ignored = matches.ignored & bit > 0
    if metric.startswith("mar"):
        most = {"mar1": 0, "mar10": 1}.get(metric, 2)
        values, what = curves.recall[:, :, area, most].mean(0), "recall"
    else:
        chosen = slice(threshold, threshold + 1) if metric in ("map50", "map75") else slice(None)
        values, what = curves.precision[chosen, :, :, area, -1].mean((0, 1)), "AP"
    width = max([len(name) for name in classes] + [5])
    yield f"at IoU {0.5 + 0.05 * threshold:.2f}, {list(AREAS)[area]} objects:"
    yield f"{'class':<{width}}  {'truths':>7}  {'right':>7}  {'wrong':>7}  {'ignored':>7}  {what:>9}"
    truths = np.bincount(matches.truth_labels[matches.truth_ranges & (1 << area) > 0], minlength=len(classes))
    for index, name in enumerate(classes):
        own = matches.labels == index
        counts = [truths[index], (own & right).sum(), (own & ~right & ~ignored).sum(), (own & ignored).sum()]
        value = None if np.isnan(values[index]) else float(values[index])
        yield f"{name:<{width}}  " + "  ".join(f"{int(count):>7}" for count in counts) + f"  {shown(value):>9}"
    over = "over IoU .50 to .95" if metric not in ("map50", "map75") else "at this IoU"
    yield f"{what} is {over}; the mean over the {int((~np.isnan(values)).sum())} classes with truth is the metric"


def _dialects(
    kept: Sequence[Detections], targets: Sequence[Objects], num_classes: int, metric: str
) -> Iterator[Dialect]:
    def value(**changed: Any) -> float | None:
        given = {"predictions": kept, "targets": targets, "num_classes": num_classes, **changed}
        return evaluate_detections(**given).metrics.get(metric)

    thresholds = {"map": [round(0.5 + 0.05 * step, 2) for step in range(10)], "map50": [0.5], "map75": [0.75]}
    for rule, words in average_precision.RULES.items() if metric in thresholds else ():
        yield Dialect(words, value(rule=rule, iou_thresholds=None if rule == "coco" else thresholds[metric]))
    of_boxes = [dataclasses.replace(target, area=box_ops.area(target.boxes)) for target in targets]
    yield Dialect("sizes by the area of the box in place of the annotation's area", value(targets=of_boxes))
    no_crowds = [dataclasses.replace(target, iscrowd=np.zeros(len(target), bool)) for target in targets]
    yield Dialect("crowds are truths to be found like others", value(targets=no_crowds))
    if metric.startswith("map"):
        most = max([MAX_DETECTIONS[-1], *(len(one.scores) for one in kept)])
        yield Dialect("all detections, not the best 100 of a class in an image", value(max_detections=(1, 10, most)))
    else:
        return
    result = evaluate_detections(predictions=kept, targets=targets, num_classes=num_classes)
    has_truth = int((result.num_truths > 0).sum())
    if has_truth < num_classes and result.metrics[metric] is not None and metric in thresholds:
        lowered = float(result.metrics[metric] or 0) * has_truth / num_classes
        yield Dialect(f"the {num_classes - has_truth} classes without truth count 0", lowered)
    # every class of an image made an image of its own: boxes compete as before, in one ranking over all classes
    apart = [
        (
            Detections(boxes=one.boxes[chosen], scores=one.scores[chosen], labels=np.zeros(chosen.sum(), np.int64)),
            Objects(
                boxes=target.boxes[known],
                labels=np.zeros(known.sum(), np.int64),
                area=target.area[known],
                iscrowd=target.iscrowd[known],
            ),
        )
        for one, target in zip(kept, targets, strict=True)
        for label in np.union1d(one.labels, target.labels)
        for chosen, known in [(one.labels == label, target.labels == label)]
    ]
    if apart:
        found, truths = zip(*apart, strict=True)
        pooled = value(predictions=list(found), targets=list(truths), num_classes=1)
        yield Dialect("one ranking over all classes (micro), not a mean over classes", pooled)
