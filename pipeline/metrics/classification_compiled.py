"""Rankings of many resamples in machine code; chosen by `classification.py` for large sets, with the same results."""

import numpy as np

from pipeline.ops.compiled import compiled


@compiled
def ranked(
    order: np.ndarray, ends: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `classification.rankings` sums up for one class, resamples side by side.

    Args:
        order: [N] int64, images by falling score.
        ends: [G] int64, where runs of equal scores end in `order`.
        positive: [N] bool, images of the class.
        weights: [N, r] uint16.

    Returns:
        lost, twice the pairs above and as high, shares, the sum of precisions at the images of the class, and their
        number, [r] float64 each.
    """
    size = weights.shape[1]
    through, found = np.zeros(size, np.int32), np.zeros(size, np.int32)
    in_run, right = np.empty(size, np.int32), np.empty(size, np.int32)
    lost, shares = np.zeros(size), np.zeros(size)
    start = counted = 0
    for stop in ends:
        hit = False
        for place in range(start, stop):
            hit = hit or positive[order[place]]
        if hit:
            add(through, weights, order[counted:start])
            in_run[:], right[:] = 0, 0
            for place in range(start, stop):
                row = weights[order[place]]
                for i in range(size):
                    in_run[i] += row[i]
                if positive[order[place]]:
                    for i in range(size):
                        right[i] += row[i]
            for i in range(size):
                through[i] += in_run[i]
                found[i] += right[i]
                lost[i] += float(right[i]) * (2.0 * through[i] - in_run[i])
                shares[i] += right[i] * (float(found[i]) / max(through[i], 1))
            counted = stop
        start = stop
    return lost, shares, found.astype(np.float64)


@compiled
def add(total: np.ndarray, weights: np.ndarray, images: np.ndarray) -> None:
    """Adds the weights [N, r] of some images to `total` [r] int32, four at a time: fewer reads and writes of it."""
    whole = len(images) // 4 * 4
    for place in range(0, whole, 4):
        first, second = weights[images[place]], weights[images[place + 1]]
        third, fourth = weights[images[place + 2]], weights[images[place + 3]]
        for i in range(len(total)):
            total[i] += np.int32(first[i]) + np.int32(second[i]) + np.int32(third[i]) + np.int32(fourth[i])
    for place in range(whole, len(images)):
        row = weights[images[place]]
        for i in range(len(total)):
            total[i] += row[i]
