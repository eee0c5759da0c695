"""The outlines of a mask as polygons along the edges of its pixels, from which the same mask is drawn again."""

from __future__ import annotations

import numpy as np

# For a step along an edge with the mask on the right hand: the steps to try next, the sharpest right turn first, so
# that pixels that touch at a corner alone are parts of their own.
TURNS = {(1, 0): ((0, 1), (1, 0), (0, -1)), (0, 1): ((-1, 0), (0, 1), (1, 0))}
TURNS |= {(-x, -y): tuple((-a, -b) for a, b in steps) for (x, y), steps in TURNS.items()}  # type: ignore[misc]

Ring = list[tuple[int, int]]


def rings(mask: np.ndarray) -> list[Ring]:
    """The closed outlines of a mask, of its parts and of their holes, from the topmost corner on.

    Args:
        mask: [H, W] bool.

    Returns:
        Corners x, y in 0..W and 0..H, where the line turns; the first is not repeated at the end.

    >>> rings(np.array([[True, True]]))
    [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    padded = np.pad(mask.astype(bool), 1)
    inner = padded[1:-1, 1:-1]
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # where the neighbour is not in the mask: the corner that the edge starts at, and its step, clockwise
    for neighbour, start, step in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(inner & ~neighbour)), strict=True):
            edges.setdefault((x + start[0], y + start[1]), []).append(step)
    found = []
    for start in sorted(edges, key=lambda corner: (corner[1], corner[0])):
        while edges[start]:
            found.append(_walk(edges, start))
    return found


def _walk(edges: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> Ring:
    """Follows edges from a corner back to it, and takes them away."""
    step = edges[start].pop(0)
    ring, corner = [start], (start[0] + step[0], start[1] + step[1])
    while corner != start:
        following = next(turn for turn in TURNS[step] if turn in edges[corner])
        edges[corner].remove(following)
        if following != step:
            ring.append(corner)
        corner, step = (corner[0] + following[0], corner[1] + following[1]), following
    return ring


def joined(outlines: list[Ring]) -> Ring:
    """One closed line through all outlines, for formats with one polygon per object.

    From the first corner it goes out to each outline and back the same way; such bridges enclose nothing, and the
    even-odd rule, by which pycocotools fills, makes holes of holes again.
    """
    first, *others = outlines
    if not others:
        return first
    line = [*first, first[0]]
    for ring in others:
        line += [*ring, ring[0], first[0]]
    return line
