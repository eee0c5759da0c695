"""Measures what a comparison of two branches must reach; keeps it in benchmarks/results/compare.{json,md}.

    python benchmarks/compare.py              all parts
    python benchmarks/compare.py --images N   a smaller set than COCO's 5,000 images
    python benchmarks/compare.py --pairs N    fewer pairs of equal quality than 200

Planted: 5% of the detections that lie near an object get that object's class and box. Equal quality: two detectors
that place and score the same objects by independent noise of one law.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import workloads

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.metrics import comparison, detection
from pipeline.metrics.detection import DetectionColumns, ObjectColumns

RESULTS = Path(__file__).resolve().parent / "results"
LEVEL = 0.95


def table_of(columns: dict[str, np.ndarray], num_images: int) -> tuple[pa.Table, dict[str, float | None]]:
    """The per-image table of an evaluation, and its figures."""
    found = DetectionColumns(
        images=columns["images"], labels=columns["labels"], scores=columns["scores"], boxes_xywh=columns["boxes"]
    )
    truth = ObjectColumns(
        images=columns["truth_images"],
        labels=columns["truth_labels"],
        areas=columns["truth_areas"],
        iscrowd=columns["iscrowd"],
        boxes_xywh=columns["truth_boxes"],
    )
    result = detection.evaluate_detections(
        predictions=found, targets=truth, num_classes=workloads.NUM_CLASSES, num_images=num_images
    )
    return pa.table(detection.per_image(result)), result.metrics


def mended(columns: dict[str, np.ndarray], share: float, seed: int) -> dict[str, np.ndarray]:
    """The same detections with a share of those near an object put right."""
    near = np.flatnonzero(columns["source"] >= 0)
    chosen = np.random.default_rng(seed).choice(near, round(share * len(columns["images"])), replace=False)
    boxes, labels = columns["boxes"].copy(), columns["labels"].copy()
    boxes[chosen] = columns["truth_boxes"][columns["source"][chosen]]
    labels[chosen] = columns["truth_labels"][columns["source"][chosen]]
    return columns | {"boxes": boxes, "labels": labels}


def judged(base: dict[str, np.ndarray], head: dict[str, np.ndarray], num_images: int, **options: Any) -> dict[str, Any]:
    """Seconds of the comparison alone, and its verdict on each metric."""
    (first, ours), (second, theirs) = table_of(base, num_images), table_of(head, num_images)
    figures = {name: (ours[name], theirs[name]) for name in ours}
    started = time.perf_counter()
    found = comparison.compare(first, second, figures, detection.METRICS, detection.resampled, **options)
    return {"seconds": time.perf_counter() - started, "verdicts": {one.metric: one.verdict for one in found}}


def equal_quality(num_images: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two draws of detections over one truth."""
    base = workloads.boxes(num_images, seed)
    rng = np.random.default_rng([seed, 1])

    def drawn() -> dict[str, np.ndarray]:
        moved = base["boxes"] + rng.normal(0, 4, base["boxes"].shape)
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        scores = np.clip(base["scores"] + rng.normal(0, 0.1, len(base["scores"])), 1e-4, 1)
        return base | {"boxes": moved, "scores": scores}

    return drawn(), drawn()


def main() -> None:
    """Measures and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--pairs", type=int, default=200)
    asked = parser.parse_args()
    columns = workloads.boxes(asked.images)
    planted = judged(columns, mended(columns, 0.05, 0), asked.images)
    same = judged(columns, columns, asked.images)
    alarms = 0
    for seed in range(asked.pairs):
        # of 12 metrics: fewer than 240 permutations could call nothing different after Holm's correction
        verdicts = judged(*equal_quality(40, 1000 + seed), 40, num_resamples=400)["verdicts"].values()
        alarms += any(verdict not in (comparison.NO_EVIDENCE, comparison.NOT_TESTED) for verdict in verdicts)
    limit = round((1 - LEVEL) * asked.pairs)
    rows = [
        (
            "seconds, two runs on the images, 12 metrics, 1,000 resamples",
            round(planted["seconds"], 1),
            "<= 60",
            planted["seconds"] <= 60,
        ),
        ("planted improvement of map", planted["verdicts"]["map"], "better", planted["verdicts"]["map"] == "better"),
        (
            "identical predictions",
            same["verdicts"]["map"],
            "identical",
            set(same["verdicts"].values()) == {"identical"},
        ),
        (f"pairs of equal quality with any false alarm, of {asked.pairs}", alarms, f"<= {limit}", alarms <= limit),
    ]
    content = {
        "num_images": asked.images,
        "figures": [dict(zip(("name", "measured", "target", "met"), row, strict=True)) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "compare.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Comparing two branches",
        "",
        f"{asked.images:,} images, 80 classes; `python benchmarks/compare.py` writes this.",
        "",
    ]
    lines += ["| figure | target | measured | met |", "|---|---:|---:|---|"]
    lines += [f"| {name} | {target} | {measured} | {'yes' if met else 'no'} |" for name, measured, target, met in rows]
    text = "\n".join(lines) + "\n"
    (RESULTS / "compare.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
