import numpy as np
import pytest
from scipy import linalg

from pipeline.metrics import bootstrap, generative


def normal(num, num_features, seed, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, (num, num_features))


def fid_by_definition(first, second):
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)


def test_fid_of_numbers_on_a_line_worked_by_hand():
    # means 1 and 5, variances 2 and 8: (1 - 5)^2 + (2^.5 - 8^.5)^2 = 16 + 2 + 8 - 2 * 4
    result = generative.fid(features=np.array([[0.0], [2.0]]), reference=np.array([[3.0], [7.0]]))
    assert result == pytest.approx(18.0)


@pytest.mark.parametrize(("num", "num_other"), [(200, 90), (200, 12), (9, 200)])
def test_fid_equals_the_definition_with_a_matrix_square_root(num, num_other):
    first, second = normal(num, 6, 0), normal(num_other, 6, 1, shift=0.5, scale=2.0)
    assert generative.fid(features=first, reference=second) == pytest.approx(fid_by_definition(first, second), rel=1e-9)


def test_fid_is_exact_with_fewer_rows_than_features():
    # rotations of 3 dimensions into 50 change no distance, but make both covariances singular
    first, second = normal(20, 3, 0), normal(30, 3, 1, shift=1.0, scale=0.5)
    basis = np.linalg.qr(normal(50, 3, 2))[0]
    result = generative.fid(features=first @ basis.T, reference=second @ basis.T)
    assert result == pytest.approx(fid_by_definition(first, second), rel=1e-9)


def test_fid_of_gaussians_with_known_axes_has_a_closed_form():
    # rows +-s_i e_i: mean 0, covariance diagonal 2 s_i^2 / (2D - 1); the distance is the sum of squared differences
    def cross(sides, mean):
        return np.concatenate([np.diag(sides), -np.diag(sides)]) + mean

    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    mean = np.array([1.0, -2.0, 0.0])
    expected = 5 + 2 / 5 * ((first - second) ** 2).sum()
    assert generative.fid(features=cross(first, 0), reference=cross(second, mean)) == pytest.approx(expected)


@pytest.mark.parametrize(("num", "num_features"), [(40, 8), (8, 40)])
def test_fid_of_a_set_with_itself_is_zero(num, num_features):
    rows = normal(num, num_features, 3, shift=10.0)
    assert generative.fid(features=rows, reference=rows[::-1]) == pytest.approx(0, abs=1e-9)


def test_fid_takes_float32_features_exactly():
    rows, others = normal(30, 5, 0).astype(np.float32), normal(40, 5, 1).astype(np.float32)
    expected = generative.fid(features=rows.astype(np.float64), reference=others.astype(np.float64))
    assert generative.fid(features=rows, reference=others) == expected


def test_unbiased_mmd_equals_the_double_loop():
    first, second = normal(7, 4, 0), normal(9, 4, 1, shift=0.3)

    def kernel(x, y):
        return (float(x @ y) / 4 + 1) ** 3

    within = sum(kernel(first[i], first[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    others = sum(kernel(second[i], second[j]) for i in range(9) for j in range(9) if i != j) / (9 * 8)
    between = sum(kernel(x, y) for x in first for y in second) / (7 * 9)
    kernels = [generative.cubic_kernel(a, b) for a, b in ((first, first), (second, second), (first, second))]
    assert generative.unbiased_mmd2(*kernels) == pytest.approx(within + others - 2 * between)


def test_kid_mean_approaches_the_mmd_of_all_rows():
    first, second = normal(60, 4, 0), normal(80, 4, 1, shift=0.7)
    kernels = [generative.cubic_kernel(a, b) for a, b in ((first, first), (second, second), (first, second))]
    mean, deviation = generative.kid(features=first, reference=second, num_subsets=2000)
    # subsets without replacement estimate the same without bias: within 4 standard errors
    assert abs(mean - generative.unbiased_mmd2(*kernels)) < 4 * deviation / 2000**0.5
    assert generative.kid_subset_size(60, 80) == 30


def test_kid_repeats_with_its_seed_and_differs_with_another():
    first, second = normal(30, 4, 0), normal(30, 4, 1)
    one, again, other = (generative.kid(features=first, reference=second, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def weighted_fid(rows, weights, reference):
    """By definition, of rows that count by weights; the covariance by N / (N - 1) as if there were N rows."""
    num, mean = len(rows), weights @ rows / weights.sum()
    covariance = (rows - mean).T * weights / weights.sum() @ (rows - mean) * num / (num - 1)
    others = np.cov(reference, rowvar=False)
    root = linalg.sqrtm(covariance @ others).real
    return np.sum((mean - reference.mean(0)) ** 2) + np.trace(covariance + others - 2 * root)


@pytest.mark.parametrize("num", [40, 9])
def test_parts_of_fid_are_its_slopes_in_the_weights(num):
    rows, reference = normal(num, 4, 0, scale=1.5), normal(50, 4, 1, shift=0.4)
    parts = generative.fid_parts(features=rows, reference=reference)
    assert parts.mean() == pytest.approx(generative.fid(features=rows, reference=reference), rel=1e-12)
    for index in (0, num - 1):
        step = np.zeros(num)
        step[index] = 1e-4
        slope = (weighted_fid(rows, 1 + step, reference) - weighted_fid(rows, 1 - step, reference)) / 2e-4
        assert (parts[index] - parts.mean()) / num == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_parts_of_fid_with_fewer_rows_than_features_are_those_of_a_rotated_space():
    rows, reference = normal(12, 3, 0), normal(30, 3, 1, shift=1.0, scale=0.5)
    basis = np.linalg.qr(normal(40, 3, 2))[0]
    expected = generative.fid_parts(features=rows, reference=reference)
    parts = generative.fid_parts(features=rows @ basis.T, reference=reference @ basis.T)
    assert parts == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_parts_of_kid_are_its_slopes_in_the_weights():
    rows, reference = normal(20, 3, 0, shift=0.5), normal(30, 3, 1)
    parts = generative.kid_parts(features=rows, reference=reference)
    assert parts.mean() == pytest.approx(generative.kid(features=rows, reference=reference)[0], rel=1e-12)
    within, between = generative.cubic_kernel(rows, rows), generative.cubic_kernel(rows, reference)
    np.fill_diagonal(within, 0)

    def weighted(weights):
        pairs = np.outer(weights, weights)
        np.fill_diagonal(pairs, 0)
        return (pairs * within).sum() / pairs.sum() - 2 * (weights @ between.mean(1)) / weights.sum()

    for index in (0, 13):
        step = np.zeros(20)
        step[index] = 1e-4
        slope = (weighted(1 + step) - weighted(1 - step)) / 2e-4
        # a pair that is no pair with itself bends the slope by 1 / N of it
        assert (parts[index] - parts.mean()) / 20 == pytest.approx(slope, rel=0.1, abs=2e-3)


def kid_alone(features, reference):
    return generative.kid(features=features, reference=reference)[0]


@pytest.mark.parametrize(
    ("distance", "parts_of"), [(generative.fid, generative.fid_parts), (kid_alone, generative.kid_parts)]
)
def test_the_interval_holds_what_other_samples_would_give_and_is_no_wider(distance, parts_of):
    rng = np.random.default_rng(0)
    reference = normal(400, 3, 1)
    drawn = [rng.normal(0.3, 1.2, (150, 3)) for _ in range(60)]
    distances = [distance(features=rows, reference=reference) for rows in drawn]
    inside, widths = 0, []
    for rows in drawn:
        parts = parts_of(features=rows, reference=reference)
        low, high = bootstrap.interval(bootstrap.weights(150, num_resamples=200) @ parts / 150)
        inside += low <= np.mean(distances) <= high
        widths.append(high - low)
    assert 0.85 <= inside / 60 <= 1
    # of a normal law 95% lie within 1.96 standard deviations, which 60 draws tell to about 9%
    assert np.mean(widths) == pytest.approx(3.92 * np.std(distances), rel=0.2)


def a_table(num_features=4, num=40):
    sets = {
        "features": normal(num, num_features, 0, shift=0.2),
        "noise": normal(num, num_features, 1, shift=3.0),
        "real": normal(30, num_features, 2),
        "reference": normal(60, num_features, 3),
    }
    return sets, generative.per_image(**sets)


def test_resampled_with_weights_of_one_equals_the_metrics():
    sets, table = a_table()
    result = generative.resampled(table, np.ones((3, table.num_rows), np.uint16))
    figures = generative.metrics(**sets)
    assert list(result) == list(figures) == list(generative.METRICS)
    for name, value in figures.items():
        assert result[name] == pytest.approx([value] * 3, rel=1e-12), name
    assert figures["fid"] == pytest.approx(fid_by_definition(sets["features"], sets["reference"]), rel=1e-9)
    assert figures["fid_real"] == pytest.approx(fid_by_definition(sets["real"], sets["reference"]), rel=1e-9)
    distance, _ = generative.kid(features=sets["noise"], reference=sets["reference"])
    assert figures["kid_noise"] == pytest.approx(distance, rel=1e-12)


def test_a_resample_of_samples_equals_the_evaluation_of_its_duplicates():
    sets, table = a_table()
    weights = bootstrap.weights(40, num_resamples=5)
    rest = np.ones((5, table.num_rows - 40), np.uint16)
    result = generative.resampled(table, np.hstack([weights, rest]))
    for index, row in enumerate(weights):
        copies = sets["features"][np.repeat(np.arange(40), row)]
        expected = generative.metrics(**(sets | {"features": copies}))
        for name in ("precision", "density", "memorised"):  # of the real images' reach, which stays
            assert result[name][index] == pytest.approx(expected[name], rel=1e-12), name
        for name in ("fid_noise", "fid_real", "kid_noise", "memorised_real"):
            assert result[name][index] == pytest.approx(expected[name], rel=1e-12), name


def test_too_few_rows_are_undefined():
    rows, one, none = normal(5, 3, 0), normal(1, 3, 1), normal(0, 3, 2)
    assert generative.fid(features=one, reference=rows) is None
    assert generative.kid(features=normal(3, 3, 1), reference=rows) == (None, None)
    assert generative.fid_parts(features=one, reference=rows) is None
    assert generative.metrics(features=none, noise=none, real=none, reference=rows) == dict.fromkeys(generative.METRICS)
