"""Objects and panoptic segments out of maps that number the instances in an image."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from pipeline.data.records import RawObject
from pipeline.ops import masks as mask_ops


def objects_of(ids: np.ndarray, labels: Mapping[int, int], crowds: Collection[int] = ()) -> list[RawObject]:
    """The objects of an instance map, in the order of their numbers; boxes and areas are those of their masks.

    Args:
        ids: [H, W] integers, the instance of each pixel.
        labels: class index of each instance number that is an object; other numbers are not.
        crowds: those of the numbers that stand for several objects at once.
    """
    present = set(np.unique(ids).tolist())
    ids = np.asfortranarray(ids)  # run lengths go down the columns: turned once, not for each object
    return [
        RawObject(label=labels[number], mask=mask_ops.encode(ids == number), iscrowd=number in crowds, index=number)
        for number in sorted(labels)
        if number in present
    ]


def majority(ids: np.ndarray, values: np.ndarray, ignored: Collection[int] = ()) -> dict[int, int]:
    """The most frequent value of another map under each instance; instances with ignored values alone are left out.

    Args:
        ids: [H, W] integers; 0 is no instance.
        values: [H, W] integers of 0..255.
        ignored: values that do not count.

    >>> majority(np.array([[1, 1, 1, 2]]), np.array([[7, 7, 255, 255]]), ignored=(255,))
    {1: 7}
    """
    result = {}
    for number in np.unique(ids).tolist():
        if number:
            counts = np.bincount(values[ids == number].astype(np.int64), minlength=256)
            counts[list(ignored)] = 0
            if counts.any():
                result[number] = int(counts.argmax())
    return result
