"""Parts of `evaluation.py` that run in a process of their own: `evaluation_parts.py PART NUMBER` prints JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

import workloads
from pipeline.metrics import bootstrap, detection, reference
from pipeline.metrics.detection import DetectionColumns, ObjectColumns, Result, evaluate_detections, resampled

NUM_IMAGES = 5000


def columns(num_images: int = NUM_IMAGES, seed: int = 0) -> tuple[DetectionColumns, ObjectColumns]:
    """The workload as columns."""
    drawn = workloads.boxes(num_images, seed)
    return (
        DetectionColumns(*(drawn[name] for name in ("images", "labels", "scores", "boxes"))),
        ObjectColumns(
            *(drawn[name] for name in ("truth_images", "truth_labels", "truth_boxes", "truth_areas", "iscrowd"))
        ),
    )


def evaluated(found: DetectionColumns, truth: ObjectColumns, num_images: int = NUM_IMAGES) -> Result:
    """Judged as the pipeline does."""
    return evaluate_detections(
        predictions=found, targets=truth, num_classes=workloads.NUM_CLASSES, num_images=num_images, compiled=True
    )


def timed(function: Callable[[], object], repeats: int) -> float:
    """The median of so many runs after a first one."""
    function()
    took = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def table(repeats: int) -> dict[str, float]:
    """From Arrow columns as predictions.arrow has them, boxes in float32 corners, to the figures."""
    found, truth = columns()
    corners = found.boxes_xywh.copy()
    corners[:, 2:] += corners[:, :2]
    offsets = pa.array(np.searchsorted(found.images, np.arange(NUM_IMAGES + 1)), pa.int32())
    boxes = pa.FixedSizeListArray.from_arrays(pa.array(corners.astype(np.float32).ravel()), 4)
    predictions = pa.table(
        {
            "boxes": pa.ListArray.from_arrays(offsets, boxes),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(found.scores.astype(np.float32))),
            "labels": pa.ListArray.from_arrays(offsets, pa.array(found.labels.astype(np.int32))),
        }
    )
    return {"warm": timed(lambda: evaluated(detection.columns_of_table(predictions), truth), repeats)}


def resampling(repeats: int) -> dict[str, float]:
    """1,000 resamples: of map for one model and for two, and of all figures."""
    tables = [pa.table(detection.per_image(evaluated(*columns(seed=seed)))) for seed in (0, 1)]
    drawn = bootstrap.weights(NUM_IMAGES)

    def map_of(*some: pa.Table) -> None:
        for one in some:
            resampled(one, drawn, names=["map"])

    return {
        "map": timed(lambda: map_of(tables[0]), repeats),
        "two": timed(lambda: map_of(*tables), repeats),
        "all": timed(lambda: resampled(tables[0], drawn), 1),
    }


def brute(_: int) -> dict[str, Any]:
    """The standard error of map from 300 resamples of 60 images, each evaluated anew by pycocotools."""
    from tests.metrics.conftest import repeated

    num_images, num_resamples = 60, 300
    found, truth = columns(num_images)
    drawn = bootstrap.weights(num_images, num_resamples=num_resamples)
    ours = resampled(pa.table(detection.per_image(evaluated(found, truth, num_images))), drawn)["map"]
    theirs = []
    for counts in drawn:
        images = np.repeat(np.arange(num_images), counts)
        parts = [repeated(one, images) for one in (found, truth)]
        _, stats = reference.curves(
            predictions=parts[0], targets=parts[1], num_images=len(images), num_classes=workloads.NUM_CLASSES
        )
        theirs.append(stats[0])
    error, expected = float(np.std(ours)), float(np.std(theirs))
    most = float(np.abs(ours - theirs).max())
    note = f"{num_resamples} resamples of {num_images} images, the largest difference of one {most:.1g}"
    return {"relative": abs(error / expected - 1), "note": note}


def equality(num_sets: int) -> dict[str, Any]:
    """Values of the arrays and figures that differ from pycocotools, over random sets of the tests."""
    from tests.metrics.conftest import random_set

    differing, values, means = 0, 0, []
    for seed in range(num_sets):
        kind = detection.KINDS[seed % 3]
        found, truth, num_images, num_classes = random_set(seed, kind)
        found, truth = (detection.by_image(one)[0] for one in (found, truth))
        sizes = {"num_images": num_images, "num_classes": num_classes}
        result = evaluate_detections(predictions=found, targets=truth, kind=kind, compiled=seed % 2 == 0, **sizes)
        theirs, stats = reference.curves(predictions=found, targets=truth, kind=kind, **sizes)
        assert result.curves is not None
        pairs = [(getattr(result.curves, name), getattr(theirs, name)) for name in ("precision", "recall", "scores")]
        pairs.append((np.array([-1.0 if v is None else v for v in result.metrics.values()]), stats))
        for ours, other in pairs:
            differing += int((~((ours == other) | (np.isnan(ours) & np.isnan(other)))).sum())
            values += ours.size
        if result.metrics["map"] is not None:
            means.append(result.metrics["map"])
    return {"differing": differing, "values": values, "sets": num_sets, "mean_map": statistics.mean(means)}


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "table": table,
    "bootstrap": resampling,
    "brute": brute,
    "equality": equality,
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](int(sys.argv[2]))))
