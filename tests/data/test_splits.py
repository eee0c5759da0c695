from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import assign, units
from pipeline.errors import ParamsError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
IDS = [f"{number:03d}" for number in range(100)]


def test_shares_are_met_to_the_image():
    assert Counter(assign(IDS, shares=SHARES, seed=0)) == {"train": 70, "val": 10, "test": 20}


def test_every_class_has_the_same_shares():
    labels = ["cat" if number < 60 else "dog" for number in range(100)]
    found = Counter(zip(labels, assign(IDS, shares=SHARES, seed=1, labels=labels), strict=True))
    # 60 cats: 42, 6, 12; 40 dogs: 28, 4, 8
    assert found == {
        ("cat", "train"): 42,
        ("cat", "val"): 6,
        ("cat", "test"): 12,
        ("dog", "train"): 28,
        ("dog", "val"): 4,
        ("dog", "test"): 8,
    }


def test_many_small_classes_leave_no_split_empty():
    # three images each: the class alone would give all to train
    labels = [number // 3 for number in range(99)]
    found = Counter(assign(IDS[:99], shares=SHARES, seed=0, labels=labels))
    assert abs(found["train"] - 69.3) < 2
    assert abs(found["val"] - 9.9) < 2


@given(st.integers(0, 5), st.lists(st.integers(0, 20), min_size=30, max_size=60))
def test_groups_are_never_torn(seed, numbers):
    groups = [str(number) for number in [*range(12), *numbers]]
    ids = [str(place) for place in range(len(groups))]
    found = assign(ids, shares={"train": 0.5, "test": 0.5}, seed=seed, groups=groups)
    assert all(len({s for s, g in zip(found, groups, strict=True) if g == group}) == 1 for group in groups)


@given(st.permutations(range(40)), st.integers(0, 3))
def test_the_order_of_the_images_does_not_matter(order, seed):
    ids, labels = IDS[:40], [number % 4 for number in range(40)]
    plain = dict(zip(ids, assign(ids, shares=SHARES, seed=seed, labels=labels), strict=True))
    shuffled = assign([ids[i] for i in order], shares=SHARES, seed=seed, labels=[labels[i] for i in order])
    assert shuffled == [plain[ids[i]] for i in order]


def test_another_seed_splits_otherwise_and_the_same_seed_alike():
    assert assign(IDS, shares=SHARES, seed=0) == assign(IDS, shares=SHARES, seed=0)
    assert assign(IDS, shares=SHARES, seed=0) != assign(IDS, shares=SHARES, seed=1)


def test_a_few_added_images_move_few_others():
    before = assign(IDS, shares=SHARES, seed=0)
    after = assign([*IDS, "new1", "new2"], shares=SHARES, seed=0)
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 6


def test_a_share_of_zero_gets_nothing():
    assert set(assign(IDS, shares={"train": 1, "val": 0}, seed=0)) == {"train"}


@pytest.mark.parametrize(
    "shares", [{"train": 0.9, "test": 0.2}, {"train": 1.2, "test": -0.2}, {"train": 0.5}, {"train": float("nan")}]
)
def test_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(ParamsError, match=r"within 0\.\.1 and add up to 1"):
        assign(IDS, shares=shares, seed=0)


def test_a_split_without_images_is_refused():
    with pytest.raises(ParamsError, match=r"split val: a share of 0\.01 leaves it without an image .*10 images"):
        assign(IDS[:10], shares={"train": 0.99, "val": 0.01}, seed=0)


def test_an_id_that_stands_twice_is_named():
    with pytest.raises(ParamsError, match="'b' stands twice"):
        assign(["a", "b", "b"], shares={"train": 1}, seed=0)


def test_no_images_have_no_splits():
    assert assign([], shares=SHARES, seed=0) == []


def test_a_copy_is_of_the_unit_of_its_original_and_a_group_is_one_unit():
    ids = ["a", "a~1", "b", "b~1", "c", "d~1", "e~x"]  # of the last two there is no original
    groups = ["g", None, None, None, "g", None, None]
    named, are_copies = units(ids, groups)
    assert named == ["group g", "group g", "b", "b", "group g", "d~1", "e~x"]
    assert are_copies == [False, True, False, True, False, False, False]
    assert units(ids)[0] == ["a", "a", "b", "b", "c", "d~1", "e~x"]
