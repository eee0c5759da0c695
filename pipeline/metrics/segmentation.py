"""Overlap of semantic label maps: of their regions and of the bands along their outlines.

All figures of a set are made from pixels pooled over its images; the mean of the images' own scores is another
metric and is named so.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, bootstrap, ratio
from pipeline.structures import IGNORE

METRICS = {
    "miou": Metric(True, "mean over the classes of intersection over union of their pixels"),
    "pixel_accuracy": Metric(True, "share of the scored pixels that are of the predicted class"),
    "frequency_weighted_iou": Metric(True, "intersection over union, mean over the classes weighted by their pixels"),
    "dice": Metric(True, "mean over the classes of 2 |P & T| / (|P| + |T|)"),
    "boundary_iou": Metric(True, "mean over the classes of intersection over union of the bands along outlines"),
    "miou_per_image": Metric(True, "mean over the images of the miou of each alone"),
    "miou_background_only": Metric(None, "the miou of predicting class 0 everywhere, to compare with"),
}
DILATION_RATIO = 0.02
"""Width of an outline's band as a share of the image's diagonal, the standard of Cheng et al. 2021."""
NUM_PIXELS_TO_COMPILE = 2**31
"""Pixels of a set from which machine code saves more time than it takes to load: 7,000 images of 480 x 640."""
SHORTEST_RUNS = 8
"""Mean length of runs, in pixels, from which it is faster to count these."""


class Counts(NamedTuple):
    """Pixels of each class, [..., K] int64 each, of one image or of many.

    Attributes:
        intersections: in both maps.
        unions: in either.
        truths: in the truth.
        boundary_intersections: in the outline's band of both maps.
        boundary_unions: in that of either.
    """

    intersections: np.ndarray
    unions: np.ndarray
    truths: np.ndarray
    boundary_intersections: np.ndarray
    boundary_unions: np.ndarray


def confusion(*, label_map: np.ndarray, target: np.ndarray, num_classes: int, compiled: bool = False) -> np.ndarray:
    """Pixels by true and predicted class.

    Args:
        label_map: [H, W] integers of 0..255, predicted class of each pixel.
        target: [H, W] likewise, true class; `IGNORE` pixels are not counted.
        num_classes: K.
        compiled: whether machine code counts, which takes a second to load; see `NUM_PIXELS_TO_COMPILE`.

    Returns:
        [K, K + 1] int64, rows true. The last column counts pixels whose prediction is no class (`IGNORE`): these are
        wrong, for leaving out what is hard must not raise a score.

    Raises:
        ValueError: the maps differ in size, or have a value that is not of 0..255.
    """
    truth, predicted = (values.ravel() for values in _bytes(target, label_map))
    return _pairs(truth, predicted, num_classes, compiled)[:-1]


def _bytes(target: np.ndarray, label_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both maps as uint8."""
    if label_map.shape != target.shape:
        raise ValueError(f"a prediction of {label_map.shape} pixels for a truth of {target.shape}")
    with np.errstate(invalid="ignore"):  # NaN is not of 0..255 either
        truth, predicted = (np.ascontiguousarray(values, np.uint8) for values in (target, label_map))
    for given, values in ((target, truth), (label_map, predicted)):
        if given.dtype != np.uint8 and (given != values).any():
            raise ValueError("a value that is not of 0..255")
    return truth, predicted


def _pairs(first: np.ndarray, second: np.ndarray, num_classes: int, compiled: bool) -> np.ndarray:
    """[K + 1, K + 1] int64, how often each pair of values [N] uint8 stands at one place; all from K on are one value.

    Label maps are made of runs of one class: where most pairs equal the one before, runs are counted and not pixels.
    """
    if not len(first):
        return np.zeros((num_classes + 1,) * 2, np.int64)
    if compiled:
        from pipeline.metrics import segmentation_compiled

        return segmentation_compiled.pairs(first, second, num_classes)
    changes = first[1:] != first[:-1]
    changes |= second[1:] != second[:-1]
    if SHORTEST_RUNS * np.count_nonzero(changes) < len(first):
        lasts = np.append(np.flatnonzero(changes), len(first) - 1)
        rows, columns = (np.minimum(values[lasts], num_classes).astype(np.int64) for values in (first, second))
        cells, size = rows * (num_classes + 1) + columns, (num_classes + 1) ** 2
        counted: np.ndarray = np.bincount(cells, np.diff(lasts, prepend=-1), size).astype(np.int64)
        return counted.reshape(num_classes + 1, -1)
    packed = first.astype(np.uint16)
    packed <<= 8
    packed |= second
    return _merged(np.bincount(packed, minlength=2**16), num_classes)


def _merged(counted: np.ndarray, num_classes: int) -> np.ndarray:
    """[K + 1, K + 1] int64 of counts of 256 x 256 pairs, those of values from K on added up."""
    every = counted.reshape(2**8, 2**8)
    found = np.zeros((num_classes + 1,) * 2, np.int64)
    found[:-1, :-1] = every[:num_classes, :num_classes]
    found[:-1, -1] = every[:num_classes, num_classes:].sum(1)
    found[-1, :-1] = every[num_classes:, :num_classes].sum(0)
    found[-1, -1] = every[num_classes:, num_classes:].sum()
    return found


def outline(label_map: np.ndarray, width: int) -> np.ndarray:
    """The inner band along the outlines of all regions of a label map.

    A pixel is in the band of its class where the square of 2 `width` + 1 pixels around it holds another class or
    leaves the image: what `width` erosions of the class's mask by a 3 x 3 square take away, all classes at once.

    Args:
        label_map: [H, W] integers.
        width: in pixels, 1 or more.

    Returns:
        [H, W] bool.
    """
    band = np.ones(label_map.shape, bool)
    if min(label_map.shape) > 2 * width:
        # a square is of one class where each of its rows is, and the pixels between its rows are
        columns = label_map[:, width:-width]
        mixed_rows = _any_of(label_map[:, 1:] != label_map[:, :-1], 2 * width, axis=1)
        mixed = _any_of(mixed_rows, 2 * width + 1, axis=0)
        mixed |= _any_of(columns[1:] != columns[:-1], 2 * width, axis=0)
        band[width:-width, width:-width] = mixed
    return band


def _any_of(flags: np.ndarray, num: int, axis: int) -> np.ndarray:
    """Whether any of `num` flags in a row is set, at each place where so many follow along an axis of two."""
    reach = 1
    while reach < num:  # the reach doubles
        step = min(reach, num - reach)
        flags = flags[:, :-step] | flags[:, step:] if axis else flags[:-step] | flags[step:]
        reach += step
    return flags


def outline_width(shape: tuple[int, ...]) -> int:
    """Width in pixels of the bands of an image [H, W]: `DILATION_RATIO` of its diagonal, at least 1."""
    return max(1, round(DILATION_RATIO * float(np.hypot(shape[0], shape[1]))))


def boundary_counts(
    *, label_map: np.ndarray, target: np.ndarray, num_classes: int, compiled: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of the outlines' bands of each class (Cheng et al. 2021, boundary IoU).

    Pixels that are not scored are cut out of both maps first, so that an outline along them is in both.

    Args:
        label_map: [H, W] integers of 0..255, predicted class of each pixel.
        target: [H, W] likewise; `IGNORE` pixels are not counted.
        num_classes: K.
        compiled: as of `confusion`.

    Returns:
        Two arrays [K] int64.

    Raises:
        ValueError: as `confusion`.
    """
    truth, predicted = (values.copy() for values in _bytes(target, label_map))
    np.putmask(predicted, truth == IGNORE, IGNORE)
    width = outline_width(truth.shape)
    for values in (truth, predicted):
        np.putmask(values, ~outline(values, width), IGNORE)
    pairs = _pairs(truth.ravel(), predicted.ravel(), num_classes, compiled)
    intersections, of_truth, of_prediction = (v[:-1] for v in (np.diagonal(pairs), pairs.sum(1), pairs.sum(0)))
    return intersections.copy(), of_truth + of_prediction - intersections


def overlaps(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of each class, [K] int64 each, of a confusion matrix [K, K + 1]."""
    intersection = np.diagonal(matrix).copy()
    return intersection, matrix.sum(1) + matrix[:, :-1].sum(0) - intersection


def count(
    *, label_map: np.ndarray, target: np.ndarray, num_classes: int, compiled: bool = False
) -> tuple[np.ndarray, Counts]:
    """The confusion matrix [K, K + 1] of one image, and all that its scores are made from; as `confusion` takes it."""
    maps: dict[str, Any] = {"label_map": label_map, "target": target, "num_classes": num_classes, "compiled": compiled}
    matrix = confusion(**maps)
    return matrix, Counts(*overlaps(matrix), matrix.sum(1), *boundary_counts(**maps))


def stacked(counts: Sequence[Counts], num_classes: int) -> Counts:
    """`Counts` of [N, K] from those of N images, [K] each."""
    return Counts(*(np.array([of[i] for of in counts], np.int64).reshape(-1, num_classes) for i in range(5)))


def per_class(counts: Counts, classes: list[str]) -> list[dict[str, Any]]:
    """IoU, Dice, accuracy and boundary IoU of each class, from `Counts` of [N, K] pooled over the images.

    Returns:
        One dict per class; iou, dice and boundary_iou are None for a class in neither truth nor prediction, accuracy
        (the share of its true pixels found) for one without truth.
    """
    counts = Counts(*(values.sum(0) for values in counts))
    return [
        {
            "class": name,
            "num_pixels": int(counts.truths[index]),
            "iou": ratio(counts.intersections[index], counts.unions[index]),
            "dice": ratio(2 * counts.intersections[index], counts.unions[index] + counts.intersections[index]),
            "boundary_iou": ratio(counts.boundary_intersections[index], counts.boundary_unions[index]),
            "accuracy": ratio(counts.intersections[index], counts.truths[index]),
        }
        for index, name in enumerate(classes)
    ]


def per_image(counts: Counts) -> pa.Table:
    """What `resampled` needs of each image.

    Args:
        counts: of N images, [N, K] each.

    Returns:
        num_pixels, num_right, miou (None where no pixel is scored), and the five of `Counts` as lists.
    """
    mious = _mean_ratio(counts.intersections, counts.unions)
    return pa.table(
        {
            "num_pixels": counts.truths.sum(1),
            "num_right": counts.intersections.sum(1),
            "miou": pa.array(mious, mask=np.isnan(mious)),
            **{name: bootstrap.as_lists(values) for name, values in counts._asdict().items()},
        }
    )


def resampled(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `METRICS` for weighted images.

    Args:
        table: N rows of `per_image`.
        weights: [R, N] integers, how often each image counts.

    Returns:
        Name to [R] float64, NaN where undefined: where no pixel is scored. The means are over the classes that occur
        in truth or prediction, that of boundary_iou over those with an outline in either.
    """
    if not table.num_rows:
        return {name: np.full(len(weights), np.nan) for name in METRICS}
    columns = [bootstrap.as_matrix(table, name) for name in Counts._fields]
    mious = table.column("miou").to_numpy()
    columns += [np.nan_to_num(mious)[:, None], ~np.isnan(mious)[:, None]]
    (sums,) = bootstrap.sums(weights, np.hstack(columns))
    num_classes = columns[0].shape[1]
    *parts, alone = np.split(sums, [num_classes * step for step in range(1, 6)], axis=1)
    counts = Counts(*parts)
    total = counts.truths.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing is scored, or a class does not occur
        shares = counts.truths / total[:, None]
        ious = np.where(counts.unions > 0, counts.intersections / counts.unions, 0)
        background = shares[:, 0] / np.count_nonzero((counts.truths > 0) | (np.arange(num_classes) == 0), axis=1)
        return {
            "miou": _mean_ratio(counts.intersections, counts.unions),
            "pixel_accuracy": counts.intersections.sum(1) / total,
            "frequency_weighted_iou": (shares * ious).sum(1),
            "dice": _mean_ratio(2 * counts.intersections, counts.unions + counts.intersections),
            "boundary_iou": _mean_ratio(counts.boundary_intersections, counts.boundary_unions),
            "miou_per_image": alone[:, 0] / alone[:, 1],
            "miou_background_only": background,
        }


def metrics(counts: Counts) -> dict[str, float | None]:
    """The figures of `METRICS` of N images, `Counts` of [N, K]; None where no pixel is scored."""
    return bootstrap.once(resampled, per_image(counts))


def _mean_ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """[N], the mean over the classes of parts by wholes [N, K], over those whose whole is not 0; NaN without one."""
    ratios = np.divide(parts, wholes, out=np.zeros(parts.shape), where=wholes > 0)
    num = np.count_nonzero(wholes, axis=1)
    return np.divide(ratios.sum(1), num, out=np.full(len(parts), np.nan), where=num > 0)
