from collections import Counter

import numpy as np
import pytest

from pipeline.data import openmoji


def test_table_has_at_least_a_dozen_icons_of_each_class_and_none_twice():
    icons = openmoji.icons()
    assert len({icon.code for icon in icons}) == len(icons)
    counts = Counter(icon.label for icon in icons)
    assert sorted(counts) == list(range(12))
    assert min(counts.values()) >= 12


def test_group_has_one_class():
    labels = {}
    for icon in openmoji.icons():
        assert labels.setdefault(icon.group, icon.label) == icon.label


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_split_divides_no_group_and_loses_no_icon(seed):
    icons = openmoji.icons()
    splits = openmoji.split(icons, seed)
    assert sorted(i.code for part in splits.values() for i in part) == sorted(i.code for i in icons)
    groups = [{icon.group for icon in part} for part in splits.values()]
    assert len(set.union(*groups)) == sum(map(len, groups))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_split_keeps_the_shares_in_every_class(seed):
    icons = openmoji.icons()
    totals = Counter(icon.label for icon in icons)
    for name, share in openmoji.SHARES.items():
        counts = Counter(icon.label for icon in openmoji.split(icons, seed)[name])
        for label, total in totals.items():
            # the largest group has five icons of a class: no split is further off than that
            assert abs(counts[label] - share * total) <= 5
            assert counts[label] >= 1


def test_split_depends_on_the_seed_and_not_on_the_order_of_other_classes():
    icons = openmoji.icons()
    codes = {name: {i.code for i in part} for name, part in openmoji.split(icons, 0).items()}
    assert codes != {name: {i.code for i in part} for name, part in openmoji.split(icons, 1).items()}
    assert codes == {name: {i.code for i in part} for name, part in openmoji.split(icons[::-1], 0).items()}


def test_rasterised_icon_is_transparent_outside_and_opaque_inside():
    drawing = openmoji.rasterise("26BD", 48)  # the football: a disc
    assert drawing.shape == (48, 48, 4)
    assert drawing[0, 0, 3] == 0
    assert drawing[24, 24, 3] == 255
    assert np.array_equal(drawing, openmoji.rasterise("26BD", 48))
