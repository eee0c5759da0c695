import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from pipeline.data.formats.polygons import joined, rings


def drawn(polygon, height, width):
    runs = coco_mask.frPyObjects([[float(value) for corner in polygon for value in corner]], height, width)
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


def test_outlines_of_a_ring_by_hand():
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    # the outer square clockwise, the hole the other way round
    assert rings(mask) == [[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (1, 2), (2, 2), (2, 1)]]


def test_pixels_that_touch_at_a_corner_are_parts_of_their_own():
    assert rings(np.eye(2, dtype=bool)) == [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]


def test_one_outline_needs_no_bridge_and_two_are_reached_and_left_the_same_way():
    first, second = [(0, 0), (1, 0), (1, 1)], [(5, 5), (6, 5), (6, 6)]
    assert joined([first]) == first
    assert joined([first, second]) == [*first, (0, 0), *second, (5, 5), (0, 0)]


def test_an_empty_mask_has_no_outline():
    assert rings(np.zeros((3, 4), bool)) == []


@settings(max_examples=300, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_pycocotools_draws_the_same_mask_again(mask):
    if mask.any():
        assert (drawn(joined(rings(mask)), *mask.shape) == mask).all()


@pytest.mark.parametrize("scale", [1, 7])
def test_the_area_of_outlines_is_that_of_the_pixels(scale):
    mask = np.kron(np.random.default_rng(0).random((9, 9)) < 0.5, np.ones((scale, scale))).astype(bool)
    area = 0.0
    for ring in rings(mask):  # the shoelace formula; holes run the other way and count against
        x, y = np.array(ring, float).T
        area += 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    assert area == mask.sum()
