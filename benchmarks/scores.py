"""How fast segmentation, panoptic and classification scores are, and intervals of every family, beside other tools.

`python benchmarks/scores.py [--rounds 7] [--out benchmarks/results/scores.json]`: contestants take turns on the same
data in one process; seconds of one core, medians over the rounds. What is compared is checked to be equal first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other would count as work

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.metrics import bootstrap, captioning, classification, generative, panoptic, segmentation
from pipeline.structures import IGNORE, Segments

HEIGHT, WIDTH, NUM_CLASSES = 480, 640, 150
Contestants = dict[str, Callable[[], Any]]


def measured(contestants: Contestants, rounds: int) -> dict[str, float]:
    """Median seconds of each, all taking turns; the first turn does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, call in contestants.items():
            start = time.process_time()
            call()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: round(statistics.median(of), 6) for name, of in seconds.items()}


def label_maps(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction, [480, 640] uint8: regions with shifted outlines, or every pixel at random."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        return tuple(rng.integers(0, NUM_CLASSES, (2, HEIGHT, WIDTH)).astype(np.uint8))  # type: ignore[return-value]
    target = rng.integers(0, NUM_CLASSES, (HEIGHT // 40, WIDTH // 40)).repeat(40, 0).repeat(40, 1).astype(np.uint8)
    label_map = np.roll(target, (3, 5), (0, 1))
    label_map[rng.random(target.shape) < 0.003] = 7
    target[:6] = IGNORE
    return target, label_map


def numpy_bincount(target: np.ndarray, label_map: np.ndarray) -> np.ndarray:
    """The usual confusion matrix of segmentation references."""
    known = target < NUM_CLASSES
    cells = NUM_CLASSES * target[known].astype(int) + label_map[known]
    return np.bincount(cells, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def of_segmentation(rounds: int) -> dict[str, Any]:
    """Confusion matrices of one pair of maps, and boundaries beside erosions."""
    found = {}
    for kind in ("regions", "noise"):
        target, label_map = label_maps(kind)
        maps: dict[str, Any] = {"label_map": label_map, "target": target, "num_classes": NUM_CLASSES}
        contestants: Contestants = {
            "numpy bincount": lambda t=target, p=label_map: numpy_bincount(t, p),
            "ours, NumPy": lambda m=maps: segmentation.confusion(**m),
            "ours, compiled": lambda m=maps: segmentation.confusion(**m, compiled=True),
            "ours, boundary IoU": lambda m=maps: segmentation.boundary_counts(**m),
        }
        for name in ("ours, NumPy", "ours, compiled"):
            assert (contestants[name]()[:, :-1] == contestants["numpy bincount"]()).all()
        found[kind] = measured(contestants, 4 * rounds)
    return found


def of_panoptic(rounds: int) -> dict[str, Any]:
    """Panoptic quality of two images of 480 x 640 with 40 segments each."""
    import torch
    from torchmetrics.functional.detection import panoptic_quality

    rng = np.random.default_rng(0)
    categories, targets, predictions, pairs = np.arange(10), [], [], []
    for _ in range(2):
        ids = rng.integers(1, 41, (HEIGHT // 40, WIDTH // 40)).repeat(40, 0).repeat(40, 1).astype(np.int32)
        moved = np.roll(ids, (3, 5), (0, 1))
        labels = rng.integers(0, 10, 40)
        first, second = (np.stack([labels[m - 1], np.where(labels[m - 1] < 5, m, 0)], -1) for m in (moved, ids))
        pairs.append((first, second))
        for which, values in ((predictions, first), (targets, second)):
            found, numbers = np.unique(values.reshape(-1, 2), axis=0, return_inverse=True)
            shown = numbers.reshape(ids.shape).astype(np.int32) + 1
            which.append(Segments(shown, np.arange(1, len(found) + 1), found[:, 0]))
    first, second = (torch.tensor(np.stack(of)) for of in zip(*pairs, strict=True))
    things, stuff = set(range(5)), set(range(5, 10))
    kinds: dict[str, Any] = {"classes": [str(c) for c in categories], "is_thing": [c in things for c in categories]}
    contestants: Contestants = {
        "torchmetrics": lambda: float(panoptic_quality(first, second, things, stuff)),
        "ours": lambda: panoptic.evaluate(predictions=predictions, targets=targets, **kinds).metrics["pq"],
    }
    assert abs(contestants["torchmetrics"]() - contestants["ours"]()) < 1e-6
    return measured(contestants, rounds)


def probabilities(num: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, K] float32 and labels [N] of a fair classifier."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num)
    scores = np.exp(rng.normal(size=(num, num_classes)) + 2 * np.eye(num_classes)[labels])
    return (scores / scores.sum(1, keepdims=True)).astype(np.float32), labels


def by_scikit_learn(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """The same ten figures; calibration, which it lacks, left out."""
    from sklearn import metrics

    predicted, truth = scores.argmax(1), np.eye(scores.shape[1])[labels]
    return [
        metrics.accuracy_score(labels, predicted),
        metrics.top_k_accuracy_score(labels, scores, k=5),
        metrics.balanced_accuracy_score(labels, predicted),
        metrics.f1_score(labels, predicted, average="macro"),
        metrics.f1_score(labels, predicted, average="micro"),
        metrics.roc_auc_score(truth, scores, average="macro"),
        metrics.average_precision_score(truth, scores, average="macro"),
        metrics.log_loss(labels, scores),
        metrics.brier_score_loss(labels, scores, scale_by_half=False),
    ]


def of_intervals(rounds: int) -> dict[str, Any]:
    """One evaluation of each family, and 1,000 resamples with the drawing of the weights."""
    found = {}
    for num, num_classes in ((300, 12), (1000, 12), (5000, 12), (2000, 100)):
        scores, labels = probabilities(num, num_classes)
        table = classification.per_image(scores=scores, labels=labels)
        found[f"classification, {num} images, {num_classes} classes"] = {
            "scikit-learn": lambda s=scores, t=labels: by_scikit_learn(s, t),
            "one evaluation": lambda s=scores, t=labels: classification.metrics(scores=s, labels=t),
            "1,000 resamples": lambda rows=table: classification.resampled(rows, bootstrap.weights(rows.num_rows)),
        }
    maps = [label_maps("regions")] * 100
    counts = segmentation_counts(maps)
    rows = segmentation.per_image(counts)
    found["segmentation, 100 images of 480 x 640, 150 classes"] = {
        "one evaluation": lambda: segmentation.metrics(segmentation_counts(maps)),
        "1,000 resamples": lambda: segmentation.resampled(rows, bootstrap.weights(rows.num_rows)),
    }
    rng = np.random.default_rng(0)
    sets = {name: rng.normal(size=(num, 256)) for name, num in
            (("features", 500), ("noise", 500), ("real", 200), ("reference", 1000))}  # fmt: skip
    of_samples = generative.per_image(**sets)
    found["generation, 500 samples, 1,000 real images, 256 features"] = {
        "one evaluation": lambda: generative.metrics(**sets),
        "1,000 resamples": lambda: generative.resampled(of_samples, bootstrap.weights(of_samples.num_rows)),
    }
    words = np.array(["a", "the", "cat", "dog", "on", "in", "red", "big", "car", "sun", "is", "runs", "and", "sea"])
    sentences = [[" ".join(rng.choice(words, 10)) for _ in range(6)] for _ in range(500)]
    captions: dict[str, Any] = {"candidates": [s[0] for s in sentences], "references": [s[1:] for s in sentences]}
    of_captions = captioning.evaluate(**captions).per_image
    found["captions, 500 images"] = {
        "one evaluation": lambda: captioning.evaluate(**captions),
        "1,000 resamples": lambda: captioning.resampled(of_captions, bootstrap.weights(of_captions.num_rows)),
    }
    return {name: measured(contestants, rounds) for name, contestants in found.items()}


def segmentation_counts(maps: list[tuple[np.ndarray, np.ndarray]]) -> segmentation.Counts:
    """Of pairs of truth and prediction."""
    counts = [segmentation.count(label_map=p, target=t, num_classes=NUM_CLASSES)[1] for t, p in maps]
    return segmentation.stacked(counts, NUM_CLASSES)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {
        "unit": "seconds of one core, median",
        "rounds": options.rounds,
        "versions": {name: __import__(name).__version__ for name in ("numpy", "scipy", "sklearn", "torchmetrics")},
        "python": platform.python_version(),
        "confusion matrix, 480 x 640, 150 classes": of_segmentation(options.rounds),
        "panoptic quality, 2 images of 480 x 640": of_panoptic(options.rounds),
        **of_intervals(options.rounds),
    }
    for part in results.values():
        if isinstance(part, dict) and {"one evaluation", "1,000 resamples"} <= part.keys():
            part["resamples by evaluation"] = round(part["1,000 resamples"] / part["one evaluation"], 2)
    text = json.dumps(results, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
