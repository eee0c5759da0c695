"""Neighbours in a feature space: which images of one set lie among those of another, and which were copied."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

PRECISION_NEIGHBOURS = 3
"""As Kynkaanniemi et al. 2019."""
DENSITY_NEIGHBOURS = 5
"""As Naeem et al. 2020."""
CELLS_AT_ONCE = 2**24


def nearest(*, features: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest real image of each sample: a copy of a training image is at distance 0.

    Args:
        features: [N, D].
        reference: [M, D], M at least 1.

    Returns:
        [N] int64 indices into `reference` and [N] float64 Euclidean distances.
    """
    indices = np.zeros(len(features), np.int64)
    for rows in chunks(len(features), len(reference)):
        indices[rows] = _squared_distances(features[rows], reference).argmin(1)
    return indices, np.linalg.norm(features.astype(np.float64) - reference[indices], axis=1)


def neighbour_distances(rows: np.ndarray, neighbours: tuple[int, ...]) -> np.ndarray:
    """[N, len(neighbours)], distance of each row of [N, D] to its k-th nearest other row; infinite without so many."""
    found = np.full((len(rows), len(neighbours)), np.inf)
    known = [(place, k) for place, k in enumerate(neighbours) if k < len(rows)]
    for part in chunks(len(rows), len(rows)):
        squares = _squared_distances(rows[part], rows)
        # a row is the nearest to itself
        ordered = np.partition(squares, [k for _, k in known], axis=1) if known else squares
        for place, k in known:
            found[part, place] = np.sqrt(ordered[:, k])
    return found


class Neighbourhoods(NamedTuple):
    """Which images lie within reach of which; a reach is the distance to the k-th nearest image of one's own set.

    Attributes:
        precise: [N] bool, samples within the reach of a real image, k = 3.
        density: [N], number of real images within whose reach, k = 5, a sample lies, by 5.
        recalled: [M] bool, real images within the reach of a sample, k = 3.
        covered: [M] bool, real images within whose reach, k = 5, a sample lies.
    """

    precise: np.ndarray
    density: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray


def neighbourhoods(*, features: np.ndarray, reference: np.ndarray) -> Neighbourhoods | None:
    """Improved precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), by image.

    What lies just at a reach is within it for the former (their equation 2), and not for the latter, as both groups'
    own code has it.

    Args:
        features: [N, D], of samples.
        reference: [M, D], of real images.

    Returns:
        What the figures are means of; None where a set has no k-th neighbour.
    """
    if min(len(features), len(reference)) <= DENSITY_NEIGHBOURS:
        return None
    reaches = neighbour_distances(reference, (PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS))
    of_samples = neighbour_distances(features, (PRECISION_NEIGHBOURS,))[:, 0]
    precise, inside = np.zeros(len(features), bool), np.zeros(len(features), np.int64)
    recalled, covered = np.zeros(len(reference), bool), np.zeros(len(reference), bool)
    for rows in chunks(len(reference), len(features)):
        distances = np.sqrt(_squared_distances(reference[rows], features))
        precise |= (distances <= reaches[rows, :1]).any(0)
        near = distances < reaches[rows, 1:]
        inside += near.sum(0)
        covered[rows] = near.any(1)
        recalled[rows] = (distances <= of_samples).any(1)
    return Neighbourhoods(precise, inside / DENSITY_NEIGHBOURS, recalled, covered)


def memorised(*, features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Which samples are nearer to their nearest real image than that one's own nearest neighbour is.

    One less the authenticity of Alaa et al. 2022. Where nothing was copied, this is as frequent among samples as
    among other real images; of copies all are.

    Args:
        features: [N, D].
        reference: [M, D], M at least 2.

    Returns:
        [N] bool.
    """
    indices, distances = nearest(features=features, reference=reference)
    near: np.ndarray = distances < neighbour_distances(reference, (1,))[indices, 0]
    return near


def _squared_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, M] float64 of rows [N, D] and others [M, D]."""
    middle = others.mean(0, dtype=np.float64)  # near the origin, less is lost in the differences
    rows, others = rows - middle, others - middle
    squares = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2 * rows @ others.T
    return np.maximum(squares, 0)


def chunks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Rows of a large matrix that are worked on at once."""
    step = max(1, CELLS_AT_ONCE // max(num_columns, 1))
    return (slice(start, start + step) for start in range(0, num_rows, step))
