import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.regression import linear

NAMES = ["a", "b", "c"]


def table(num=60):
    rng = np.random.default_rng(0)
    features = (rng.normal(0, 1, (num, 3)) * [1, 20, 0.1] + [5, -3, 0]).astype(np.float32)
    targets = features @ np.array([2, 0.3, -15]) + 7 + rng.normal(0, 1, num)
    return features, targets.astype(np.float32)


def test_the_first_step_by_hand():
    features, targets = np.array([[0.0], [2.0]], np.float32), np.array([1.0, 5.0], np.float32)
    # scaled to -1 and 1; the slope of ((-w + b - 1)^2 + (w + b - 5)^2) / 2 at 0 is (-4, -6); times -0.25
    state = linear.fit(features, targets, [], 0, lr=0.25, steps=1)
    assert state["path"].tolist() == [[0, 0], [1.0, 1.5]]
    assert linear.values(state, np.array([[4.0]], np.float32)).tolist() == [1.0 * 3 + 1.5]
    # errors there: -1 + 1.5 - 1 = -0.5 and 1 + 1.5 - 5 = -2.5
    assert linear.history(state, features, targets).tolist() == [(1 + 25) / 2, (0.25 + 6.25) / 2]


def test_a_constant_feature_says_nothing_though_its_mean_is_rounded():
    features = np.full((3, 1), 0.1)  # whose sum by float64 is not .3
    assert features.std(0).all()
    state = linear.fit(features, np.array([1.0, 2, 6]), [], 0)
    assert linear.values(state, features) == pytest.approx([3, 3, 3])


@pytest.mark.parametrize("columns", [[], ["b"], ["c", "a"]])
def test_descent_meets_the_normal_equations(columns):
    features, targets = table()
    state = linear.fit(features, targets, NAMES, 0, columns=columns, steps=2000)
    used = features[:, [NAMES.index(column) for column in columns or NAMES]].astype(np.float64)
    want = LinearRegression().fit(used, targets.astype(np.float64)).predict(used)
    assert linear.values(state, features) == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_descent_on_raw_features_meets_them_too_if_slowly():
    features, targets = table()
    used = features[:, :1].astype(np.float64)
    options = {"columns": ["a"], "normalise": False, "lr": 0.03}
    want = LinearRegression().fit(used, targets.astype(np.float64)).predict(used)
    soon, late = (linear.fit(features, targets, NAMES, 0, steps=steps, **options) for steps in (200, 50_000))
    errors = [float(np.abs(linear.values(state, features) - want).max()) for state in (soon, late)]
    assert errors[0] > 0.5 > 1e-3 > errors[1]


def test_the_l2_penalty_is_ridge_regression():
    features, targets = table()
    state = linear.fit(features, targets, NAMES, 0, l2=0.5, steps=2000)
    scaled = (features - features.mean(0)) / features.std(0)
    ridge = Ridge(alpha=0.5 * len(features), tol=1e-10).fit(scaled, targets)  # theirs sums over samples, ours averages
    assert state["weight"] == pytest.approx(ridge.coef_, rel=1e-4)
    assert state["bias"] == pytest.approx(ridge.intercept_, rel=1e-4)


def test_the_kept_form_gives_the_error_anywhere():
    features, targets = table()
    state = linear.fit(features, targets, NAMES, 0, columns=["a"], steps=5)
    for place, error in zip(state["path"], linear.history(state, features, targets), strict=True):
        found = place @ state["gram"] @ place - 2 * place @ state["cross"] + state["square"]
        assert found == pytest.approx(error, rel=1e-6)


def test_a_long_path_is_kept_at_even_steps_with_both_ends():
    state = linear.fit(*table(), NAMES, 0, steps=5000)
    assert len(state["steps"]) == len(state["path"]) == linear.MOST_KEPT
    assert state["steps"][[0, -1]].tolist() == [0, 5000]
    assert state["path"][-1, :-1] == pytest.approx(state["weight"])


def test_a_rate_that_leads_uphill_is_refused_and_the_limit_holds():
    features, targets = table()
    with pytest.raises(PipelineError, match=r"leads uphill, from .*; fix: lr below (\d\.\d+)") as caught:
        linear.fit(features, targets, NAMES, 0, lr=5.0)
    limit = float(str(caught.value).rpartition(" ")[2])
    linear.fit(features, targets, NAMES, 0, lr=0.99 * limit)
    with pytest.raises(PipelineError):
        linear.fit(features, targets, NAMES, 0, lr=1.05 * limit, steps=3000)


def test_an_unknown_feature_is_named():
    with pytest.raises(ParamsError, match=r"regression/linear columns: no feature 'd'; .*choices: a, b, c"):
        linear.fit(*table(), NAMES, 0, columns=["d"])
    with pytest.raises(ParamsError, match="extracted features have no names"):
        linear.fit(*table(), [], 0, columns=["a"])
