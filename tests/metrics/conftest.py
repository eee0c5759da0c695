"""Random sets of detections that hold all that is awkward: ties, crowds, empty images and classes, doubles, misses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.metrics import overlaps
from pipeline.metrics.detection import DetectionColumns, ObjectColumns

Set = tuple[DetectionColumns, ObjectColumns, int, int]


def boxes(rng: np.random.Generator, num: int) -> np.ndarray:
    """[num, 4] left, top, width, height of 1 to 121 pixels."""
    drawn = rng.uniform(0, 60, (num, 4))
    drawn[:, 2:] = 2 * drawn[:, 2:] + 1
    return drawn


def mask(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """A rectangle of an image of 200 x 220, half of the time with holes."""
    filled = np.zeros((200, 220), bool)
    left, top, width, height = np.maximum(np.round(box), 0).astype(int)
    filled[top : top + height, left : left + width] = True
    return filled & (rng.random(filled.shape) < 0.8) if rng.random() < 0.5 else filled


def random_set(seed: int, kind: str) -> Set:
    """Detections, truth, number of images and of classes; every second set has whole pixels and few scores."""
    rng = np.random.default_rng(seed)
    coarse = bool(rng.random() < 0.5)
    num_images, num_classes = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    num_truths, num = int(rng.integers(0, 25)), int(rng.integers(0, 260 if rng.random() < 0.2 else 60))
    truth_images, truth_labels = rng.integers(0, num_images, num_truths), rng.integers(0, num_classes, num_truths)
    truth_boxes, shown = boxes(rng, num_truths), boxes(rng, num)
    images, labels = rng.integers(0, num_images, num), rng.integers(0, num_classes, num)
    source = rng.integers(0, max(num_truths, 1), num)
    near = (rng.random(num) < 0.75) & (num_truths > 0)
    shown[near] = truth_boxes[source[near]] + rng.normal(0, 3, (near.sum(), 4))
    shown[:, 2:] = np.maximum(shown[:, 2:], 0.5)
    images[near] = truth_images[source[near]]
    labels[near] = np.where(rng.random(near.sum()) < 0.9, truth_labels[source[near]], labels[near])
    if coarse:
        truth_boxes, shown = np.round(truth_boxes), np.round(shown)
    found = DetectionColumns(images, labels, rng.integers(0, 10, num) / 9 if coarse else rng.random(num), shown)
    truth = ObjectColumns(
        images=truth_images,
        labels=truth_labels,
        boxes_xywh=truth_boxes,
        areas=truth_boxes[:, 2] * truth_boxes[:, 3] * rng.choice([1, 0.5, 10], num_truths),
        iscrowd=rng.random(num_truths) < 0.2,
    )
    if kind == "masks":
        found.masks = overlaps.masks_of([mask(rng, box) for box in shown])
        truth.masks = overlaps.masks_of([mask(rng, box) for box in truth_boxes])
    if kind == "keypoints":
        points = truth_boxes[:, None, :2] + rng.random((num_truths, 17, 2)) * truth_boxes[:, None, 2:]
        visible = rng.integers(0, 3, (num_truths, 17, 1)) * (rng.random((num_truths, 1, 1)) < 0.8)
        truth.keypoints = np.concatenate([points, visible], axis=2)
        guessed = shown[:, None, :2] + rng.random((num, 17, 2)) * shown[:, None, 2:]
        guessed[near] = points[source[near]] + rng.normal(0, 2, (near.sum(), 17, 2))
        found.keypoints = np.concatenate([guessed, np.ones((num, 17, 1))], axis=2)
    return found, truth, num_images, num_classes


def repeated(columns: Any, images: np.ndarray) -> Any:
    """The columns of a list of images, the same one perhaps many times."""
    parts = [np.flatnonzero(columns.images == image) for image in images]
    rows = np.concatenate([np.zeros(0, int), *parts])
    values = {name: value if value is None else value[rows] for name, value in vars(columns).items()}
    return type(columns)(**values | {"images": np.repeat(np.arange(len(images)), [len(part) for part in parts])})


@pytest.fixture(scope="session")
def detection_set() -> Callable[[int, str], Set]:
    """`random_set`: the same seed gives the same set."""
    return random_set
