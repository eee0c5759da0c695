"""Resampling of images: how far a figure would move had other images of the same kind been drawn.

A resample is a number of copies of each image. A family's `resampled(table, weights)` computes its figures from these
numbers and what the per-image table keeps: nothing is matched, decoded or sorted again. Resamples are drawn over the
whole set and not within its classes: the share of a class among new images is as uncertain as all else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

NUM_RESAMPLES = 1000
LEVEL = 0.95
CELLS_AT_ONCE = 2**20


def weights(
    num_images: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0, groups: Sequence[str | None] | None = None
) -> np.ndarray:
    """How often each image is drawn in each resample.

    Args:
        num_images: N.
        num_resamples: R.
        seed: equal seeds and numbers give equal draws, so that two runs on the same images can be paired.
        groups: N names of what was drawn as a whole (a patient, a video). Whole groups are drawn, as many as there
            are; an image without a group is one of its own. None: images are drawn.

    Returns:
        [R, N] uint16; without groups each row sums to N.
    """
    rng = np.random.default_rng(seed)
    members = np.arange(num_images) if groups is None else group_numbers(groups)
    num_groups = int(members.max(initial=-1)) + 1
    drawn = np.zeros((num_resamples, num_groups), np.uint16)
    # row by row of one stream: the first resamples do not depend on how many follow
    for rows in slices(num_resamples, num_groups, 2**16):
        num = rows.stop - rows.start
        cells = rng.integers(0, max(num_groups, 1), (num, num_groups))
        cells += num_groups * np.arange(num)[:, None]
        drawn[rows] = np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape)
    return drawn[:, members] if groups is not None else drawn


def slices(num_resamples: int, num_images: int, cells: int = CELLS_AT_ONCE) -> Iterator[slice]:
    """Resamples that are worked on at once, so that there are about `cells` weights of them."""
    step = max(1, cells // max(num_images, 1))
    return (slice(start, min(start + step, num_resamples)) for start in range(0, num_resamples, step))


def columns(weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Weights [R, N] as slices of the resamples and [N, r] float64, resamples side by side: fast to take sums of."""
    for rows in slices(*weights.shape):
        yield rows, np.ascontiguousarray(weights[rows].T, dtype=np.float64)


def sums(weights: np.ndarray, *values: Any) -> list[np.ndarray]:
    """Sums over the images weighted by [R, N], [R, M] each, of values [N, M] each: arrays or scipy's sparse ones."""
    found = [np.zeros((len(weights), of.shape[1])) for of in values]
    for rows, drawn in columns(weights):
        for result, of in zip(found, values, strict=True):
            result[rows] = (of.T @ drawn).T
    return found


def once(
    resampled: Callable[[pa.Table, np.ndarray], Mapping[str, np.ndarray]], table: pa.Table
) -> dict[str, float | None]:
    """A family's figures where every row of its table counts once; None where undefined."""
    figures = resampled(table, np.ones((1, table.num_rows), np.uint16))
    return {name: None if np.isnan(values[0]) else float(values[0]) for name, values in figures.items()}


def defined_mean(values: np.ndarray) -> np.ndarray:
    """[R] float64, the mean of what is defined in each row of [R, ...]; NaN where nothing is.

    >>> defined_mean(np.array([[1, np.nan, 4], [np.nan, np.nan, np.nan]])).tolist()
    [2.5, nan]
    """
    rows = values.reshape(len(values), int(np.prod(values.shape[1:])))
    defined = ~np.isnan(rows)
    num = defined.sum(1)
    total = np.where(defined, rows, 0).sum(1)
    return np.divide(total, num, out=np.full(len(rows), np.nan), where=num > 0)


def as_lists(values: np.ndarray) -> pa.Array:
    """Numbers [N, M] as a column of N lists, for a per-image table."""
    return pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(values).ravel(), values.shape[1])


def as_matrix(table: pa.Table, name: str) -> np.ndarray:
    """[N, M], a column that `as_lists` made."""
    column = table.column(name)
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(table.num_rows, column.type.list_size)


def group_numbers(groups: Sequence[str | None]) -> np.ndarray:
    """The number of each image's group, counted in the order of their first images; an image without one is its own.

    >>> group_numbers(["a", None, "a", None]).tolist()
    [0, 1, 0, 2]
    """
    numbers: dict[object, int] = {}
    keys = ((index,) if group is None else group for index, group in enumerate(groups))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The percentile interval of resampled values [R] (Efron 1979), over the finite ones; None where there are none.

    Args:
        values: [R] float64, NaN where a resample left the figure undefined.
        level: share of the resamples inside, 0..1; as many lie below as above.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(resampled: Mapping[str, np.ndarray], level: float = LEVEL) -> list[tuple[str, float, float]]:
    """Name, low and high end for each figure of a family's `resampled`, in its order, undefined ones left out."""
    found = ((name, interval(values, level)) for name, values in resampled.items())
    return [(name, *ends) for name, ends in found if ends is not None]
