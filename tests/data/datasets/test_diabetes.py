import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from pipeline.data.datasets import diabetes
from pipeline.data.store import Store
from pipeline.errors import ParamsError
from pipeline.structures import SPLITS


def test_numbers_are_those_of_scikit_learn_in_their_own_units(tmp_path):
    diabetes.prepare(tmp_path / "diabetes", seed=0)
    store, table = Store(tmp_path / "diabetes"), load_diabetes(scaled=False)
    assert store.info.tasks == ["regression"]
    assert store.info.feature_names == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert store.info.counts == {"train": 265, "val": 89, "test": 88}  # 0.6, 0.2 and 0.2 of 442
    seen = []
    for name in SPLITS:
        split = store.split(name)
        for index in range(len(split)):
            row = split.row(index)
            number = int(row["image_id"].split("_")[1]) - 1
            assert row["features"] == pytest.approx(table.data[number], rel=1e-6)
            assert row["target"] == table.target[number]
            seen.append(number)
    assert sorted(seen) == list(range(442))


def test_the_image_is_a_bar_for_each_number(tmp_path):
    diabetes.prepare(tmp_path / "diabetes", seed=0)
    split = Store(tmp_path / "diabetes").split("train")
    sexes = np.array([row[1] for row in split.column("features")])
    for sex, is_full in ((1, False), (2, True)):  # the second bar, of the lesser or the greater code
        image = split.read(int(np.flatnonzero(sexes == sex)[0])).image
        assert image.shape == (48, 40, 1)
        assert (image[:, 4:8] < 128).all() == is_full


def test_shares_that_leave_no_test_are_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"datasets.diabetes.options: train and val leave no row for test"):
        diabetes.prepare(tmp_path / "diabetes", seed=0, train=0.7, val=0.3)
