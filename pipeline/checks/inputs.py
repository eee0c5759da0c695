"""The data of a run as its model gets it: images, truths and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.checks.subject import Subject
from pipeline.data.features import FeatureSplit
from pipeline.structures import IGNORE, Batch, DatasetInfo
from pipeline.training.sanity import Check

SAMPLE = 256
"""Images that are looked at."""
APART = 0.15
"""By which their mean and deviation may differ from those that are stored."""
SHOWN = 5


def of_images(subject: Subject) -> Iterator[Check]:
    """Checks of the images and truths of the training split."""
    train, val = (subject.splits[split].column("image_id") for split in ("train", "val"))
    yield apart(train, val, "images")
    batch = subject.batch(SAMPLE)
    yield from of_pixels(batch, subject.info)
    if subject.entry.task == "classification":
        yield of_labels(np.array(subject.splits["train"].column("label"), float), subject.info.classes)
    elif subject.entry.task == "detection" and batch.boxes is not None and batch.box_labels is not None:
        height, width = batch.images.shape[2:]
        yield of_boxes(np.concatenate([boxes.cpu().numpy() for boxes in batch.boxes]), height, width)
        yield of_labels(np.concatenate([labels.cpu().numpy() for labels in batch.box_labels]), subject.info.classes)
    elif subject.entry.task == "segmentation" and batch.semantic is not None:
        yield of_maps(batch.semantic.unique().tolist(), len(subject.info.semantic_classes))


def apart(train: Sequence[str], val: Sequence[str], what: str) -> Check:
    """Whether no image is in both splits."""
    shared = sorted(set(train) & set(val))
    found = f"{len(shared)} in both, such as {shared[0]}" if shared else f"{len(train)} train, {len(val)} val"
    return Check(f"{what} of train and val", "fail" if shared else "pass", found, "none in both")


def of_pixels(batch: Batch, info: DatasetInfo) -> Iterator[Check]:
    """Whether pixels lie in 0..1, images are not all even, and mean and deviation are those that are stored."""
    images = batch.images.double().cpu()
    low, high = float(images.min()), float(images.max())
    even = int((images.flatten(1).std(1) == 0).sum())
    is_good = low >= 0 and high <= 1 and even < len(images)  # a NaN is in no range
    found = f"{low:.3g} to {high:.3g}, {even} of {len(images)} images are even"
    yield Check("pixels", "pass" if is_good else "fail", found, "0 to 1")
    found_each = [*images.mean((0, 2, 3)).tolist(), *images.std((0, 2, 3)).tolist()]
    off = max(abs(one - other) for one, other in zip(found_each, [*info.mean, *info.std], strict=True))
    yield Check("mean and deviation", "pass" if off <= APART else "fail", f"off by {off:.2g}", f"stored, by {APART:g}")


def of_labels(labels: np.ndarray, classes: Sequence[str]) -> Check:
    """Whether labels [N] are of the K classes, and each class is there."""
    wanted = f"each of {len(classes)} classes"
    stray = ~((labels >= 0) & (labels < len(classes)))
    if stray.any():
        return Check("labels", "fail", f"{int(stray.sum())} of {len(labels)} are of no class", wanted)
    counts = np.bincount(labels.astype(int), minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    found = f"none of {', '.join(absent[:SHOWN])}" if absent else f"{counts.min()} to {counts.max()} of a class"
    return Check("labels", "fail" if absent else "pass", found, wanted)


def of_boxes(boxes: np.ndarray, height: int, width: int) -> Check:
    """Whether boxes [N, 4], xyxy, lie inside the image and have an area."""
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    good = inside & (boxes[:, 2:] > boxes[:, :2]).all(1)
    found = f"{int((~good).sum())} of {len(boxes)} are not"
    return Check("boxes", "pass" if len(boxes) and good.all() else "fail", found, "inside, with an area")


def of_maps(values: Sequence[int], num_classes: int) -> Check:
    """Whether the values of label maps are classes."""
    seen = sorted(set(values) - {IGNORE})
    stray = [value for value in seen if not 0 <= value < num_classes]
    found = f"{stray[:SHOWN]} are none" if stray else f"{len(seen)} of {num_classes} are there"
    return Check("classes of pixels", "fail" if stray or not seen else "pass", found, f"0 to {num_classes - 1}")


def of_features(train: FeatureSplit, val: FeatureSplit) -> Iterator[Check]:
    """Whether features are finite, and not all constant."""
    yield apart(train.image_ids, val.image_ids, "samples")
    num = train.features.shape[1]
    broken = int((~np.isfinite(train.features)).any(0).sum())
    constant = 0 if broken else int((np.ptp(train.features, axis=0) == 0).sum())
    found = f"{num} columns, {broken} not finite, {constant} constant"
    yield Check("features", "fail" if broken or constant == num else "pass", found, "finite, and not all constant")


def of_targets(targets: np.ndarray | None) -> Check:
    """Whether targets [N] are finite and not all equal."""
    wanted = "finite, and not all equal"
    if targets is None or not len(targets):
        return Check("targets", "fail", "none", wanted)
    is_good = bool(np.isfinite(targets).all()) and float(np.ptp(targets)) > 0
    return Check("targets", "pass" if is_good else "fail", f"{targets.min():.3g} to {targets.max():.3g}", wanted)
