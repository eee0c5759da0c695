import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from pipeline.metrics import regression


def test_figures_by_hand():
    # errors -1, 0, 2, 1; mean of the truth 4, deviations -3, -1, 1, 3
    found = regression.metrics(values=np.array([0.0, 3, 7, 8]), targets=np.array([1.0, 3, 5, 7]))
    assert found["rmse"] == pytest.approx(np.sqrt(6 / 4))  # (1 + 0 + 4 + 1) / 4
    assert found["mae"] == pytest.approx(1.0)  # (1 + 0 + 2 + 1) / 4
    assert found["r2"] == pytest.approx(1 - 6 / 20)  # 9 + 1 + 1 + 9
    assert found["rmse_mean"] == pytest.approx(np.sqrt(20 / 4))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_figures_are_those_of_scikit_learn(offset):
    rng = np.random.default_rng(0)
    targets = rng.normal(offset, 3, 200)
    values = targets + rng.normal(0.5, 2, 200)
    found = regression.metrics(values=values, targets=targets)
    assert found["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(targets, values), rel=1e-9)
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(targets, values), rel=1e-9)
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(targets, values), rel=1e-9)


def test_the_mean_explains_nothing_and_worse_is_negative():
    targets = np.array([1.0, 2, 6])
    assert regression.metrics(values=np.full(3, 3.0), targets=targets)["r2"] == pytest.approx(0)
    assert regression.metrics(values=-targets, targets=targets)["r2"] < 0


def test_equal_targets_leave_nothing_to_explain():
    found = regression.metrics(values=np.array([1.0, 2]), targets=np.array([0.1, 0.1]))
    assert found["r2"] is None
    assert found["rmse_mean"] == 0


def test_a_resample_of_one_image_alone_has_no_variance():
    table = regression.per_image(values=np.array([1.0, 2, 3]), targets=np.array([0.1, 0.7, 0.9]))
    drawn = regression.resampled(table, np.array([[0, 3, 0], [1, 1, 1]]))
    assert np.isnan(drawn["r2"][0])
    assert drawn["rmse"][0] == pytest.approx(1.3)
    assert np.isfinite(drawn["r2"][1])
