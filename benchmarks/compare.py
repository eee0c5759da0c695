"""Measures what a comparison of two branches must reach; keeps it in benchmarks/results/compare.{json,md}.

Each part can run alone and replaces its own part of the results:

    python benchmarks/compare.py --large   two runs on 5,000 images of 80 classes: seconds and verdicts
    python benchmarks/compare.py --pairs   false alarms over 200 pairs of equal quality

Without a flag both run.

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
import scipy.stats

import workloads

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.metrics import comparison, detection
from pipeline.metrics.detection import DetectionColumns, ObjectColumns

RESULTS = Path(__file__).resolve().parent / "results"
LEVEL = 0.95
NUM_IMAGES, NUM_PAIRS = 5000, 200


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


def large() -> list[dict[str, Any]]:
    """Two runs on as many images as COCO's val2017 has."""
    columns = workloads.boxes(NUM_IMAGES)
    planted = judged(columns, mended(columns, 0.05, 0), NUM_IMAGES)
    same = judged(columns, columns, NUM_IMAGES)
    improved, unchanged = planted["verdicts"]["map"], set(same["verdicts"].values())
    seconds = round(planted["seconds"], 1)
    return [
        figure("seconds, two runs on the images, 12 metrics, 1,000 resamples", seconds, "<= 60", seconds <= 60),
        figure("planted improvement of map", improved, "better", improved == "better"),
        figure("identical predictions", ", ".join(sorted(unchanged)), "identical", unchanged == {"identical"}),
    ]


def pairs() -> list[dict[str, Any]]:
    """Pairs of detectors of equal quality, of which chance alone makes one look better.

    A test whose level is exact has as many alarms as expected or fewer in little more than half of such runs. So two
    figures: the count beside the expected one, and beside what an exact test exceeds in 1% of runs.
    """
    alarms = 0
    for seed in range(NUM_PAIRS):
        # of 12 metrics: fewer than 240 permutations could call nothing different after Holm's correction
        verdicts = judged(*equal_quality(40, 1000 + seed), 40, num_resamples=400)["verdicts"].values()
        alarms += any(verdict not in (comparison.NO_EVIDENCE, comparison.NOT_TESTED) for verdict in verdicts)
    limit = round((1 - LEVEL) * NUM_PAIRS)
    bound = int(scipy.stats.binom.ppf(0.99, NUM_PAIRS, 1 - LEVEL))
    share = scipy.stats.binomtest(alarms, NUM_PAIRS).proportion_ci(0.95, "exact")
    name = f"pairs of equal quality with any false alarm, of {NUM_PAIRS}"
    interval = f"{name}; exact 95% interval of their share {share.low:.3f} to {share.high:.3f}"
    return [
        figure(interval, alarms, f"<= {limit}", alarms <= limit),
        figure(
            f"{name}; exceeded by a test of exactly that level in 1% of runs", alarms, f"<= {bound}", alarms <= bound
        ),
    ]


def figure(name: str, measured: object, target: str, met: bool) -> dict[str, Any]:
    """A measured value beside its target."""
    return {"name": name, "measured": measured, "target": target, "met": met}


def main() -> None:
    """Measures the parts that were asked for, merges them into the results, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"large": large, "pairs": pairs}
    for name in parts:
        parser.add_argument(f"--{name}", action="store_true")
    asked = parser.parse_args()
    wanted = [name for name in parts if getattr(asked, name)] or list(parts)
    path = RESULTS / "compare.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content = {name: parts[name]() if name in wanted else content.get(name, []) for name in parts}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = ["# Comparing two branches", "", "`python benchmarks/compare.py` measures and writes this.", ""]
    lines += ["| part | figure | target | measured | met |", "|---|---|---:|---:|---|"]
    for part, figures in content.items():
        for one in figures:
            cells = (part, one["name"], one["target"], str(one["measured"]), "yes" if one["met"] else "no")
            lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
