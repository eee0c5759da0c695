import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.data.instance_maps import majority, objects_of
from pipeline.ops import masks

MAPS = arrays.arrays(np.uint8, (6, 7), elements=st.integers(0, 4))


@given(MAPS)
def test_masks_of_the_objects_are_their_pixels(ids):
    labels = {1: 5, 3: 0, 9: 2}
    found = objects_of(ids, labels, crowds=[3])
    assert [each.index for each in found] == [number for number in (1, 3) if (ids == number).any()]
    for each in found:
        assert np.array_equal(masks.decode(each.mask["counts"], 6, 7), ids == each.index)
        assert each.label == labels[each.index]
        assert each.iscrowd == (each.index == 3)
        assert each.bbox is None  # taken from the mask


def test_empty_map_has_no_objects():
    assert objects_of(np.zeros((4, 4), np.uint8), {1: 0}) == []
    assert majority(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)) == {}


@given(MAPS, MAPS)
def test_majority_is_the_most_frequent_value_that_counts(ids, values):
    found = majority(ids, values, ignored=(0, 4))
    for number in (1, 2, 3, 4):
        under = [value for value in values[ids == number].tolist() if value not in (0, 4)]
        if not under:
            assert number not in found
        else:
            assert under.count(found[number]) == max(under.count(value) for value in under)
    assert 0 not in found


def test_majority_takes_the_smaller_value_of_equal_counts():
    assert majority(np.array([[1, 1, 1, 1]]), np.array([[8, 3, 3, 8]])) == {1: 3}
