import numpy as np
import pytest
from scipy import linalg

from pipeline.metrics import generative


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


def test_nearest_finds_a_copied_image_at_distance_zero():
    reference = normal(50, 6, 0, shift=100.0)
    features = np.concatenate([normal(10, 6, 1, shift=100.0), reference[[7]]])
    indices, distances = generative.nearest(features=features, reference=reference)
    slow = np.linalg.norm(features[:, None] - reference[None], axis=2)
    assert indices.tolist() == slow.argmin(1).tolist()
    assert distances == pytest.approx(slow.min(1), abs=1e-9)
    assert (indices[-1], distances[-1]) == (7, 0.0)


def test_too_few_rows_are_undefined():
    rows, one, none = normal(5, 3, 0), normal(1, 3, 1), normal(0, 3, 2)
    assert generative.fid(features=one, reference=rows) is None
    assert generative.kid(features=normal(3, 3, 1), reference=rows) == (None, None)
    assert generative.nearest(features=none, reference=rows)[1].tolist() == []
    assert generative.metrics(features=none, noise=none, real=none, reference=rows) == dict.fromkeys(generative.METRICS)
