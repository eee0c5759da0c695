import numpy as np
import pyarrow as pa
import pytest

from pipeline.metrics import bootstrap


def test_every_resample_draws_as_many_images_as_there_are():
    weights = bootstrap.weights(40, num_resamples=300)
    assert weights.shape == (300, 40)
    assert set(weights.sum(1).tolist()) == {40}
    # each image is drawn 40 times with chance 1 / 40: mean 1, variance 39 / 40
    assert weights.mean() == 1.0
    assert weights.var() == pytest.approx(39 / 40, rel=0.05)


def test_equal_seeds_draw_equally_and_others_do_not():
    first, again, other = (bootstrap.weights(20, num_resamples=9, seed=seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    assert bootstrap.weights(20, num_resamples=5, seed=1).tolist() == first[:5].tolist()


def test_whole_groups_are_drawn_and_an_image_without_one_is_its_own():
    weights = bootstrap.weights(6, num_resamples=200, groups=["a", "b", "a", None, "b", None])
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, 3] != weights[:, 5]).any()
    assert set((weights[:, 0] + weights[:, 1] + weights[:, 3] + weights[:, 5]).tolist()) == {4}  # four groups


def test_an_interval_leaves_the_same_share_outside_at_both_ends():
    # 0 to 1000: 25 of 1001 values lie below the 2.5% quantile
    assert bootstrap.interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert bootstrap.interval(np.append(np.arange(1001.0), np.nan), level=0.5) == pytest.approx((250.0, 750.0))
    assert bootstrap.interval(np.full(5, np.nan)) is None


def test_undefined_figures_have_no_interval():
    found = bootstrap.intervals({"a": np.full(9, np.nan), "b": np.full(9, 0.5)})
    assert found == [("b", 0.5, 0.5)]


def test_no_images_can_be_resampled():
    assert bootstrap.weights(0, num_resamples=3).shape == (3, 0)


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for index in range(200):
        values = rng.random(100) < 0.7
        drawn = bootstrap.weights(100, num_resamples=200, seed=index) @ values / 100
        low, high = bootstrap.interval(drawn)
        covered += low <= 0.7 <= high
    assert 0.9 <= covered / 200 <= 0.985


def test_every_row_counts_once_and_what_is_undefined_is_none():
    def resampled(table, weights):
        values = table.column("value").to_numpy()
        return {"sum": weights @ values, "rows": weights.sum(1), "nothing": np.full(len(weights), np.nan)}

    table = pa.table({"value": np.array([1.5, 2.0, 4.0])})
    figures = bootstrap.once(resampled, table)
    assert figures == {"sum": 7.5, "rows": 3.0, "nothing": None}
    assert [type(value) for value in figures.values()] == [float, float, type(None)]


def test_the_mean_of_what_is_defined_in_each_row():
    values = np.array([[[1, np.nan], [4, np.nan]], [[np.nan] * 2] * 2, [[1, 2], [3, 6]]])
    np.testing.assert_array_equal(bootstrap.defined_mean(values), [2.5, np.nan, 3])
    assert bootstrap.defined_mean(np.zeros((2, 0))).tolist() == pytest.approx([np.nan] * 2, nan_ok=True)
