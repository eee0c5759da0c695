import numpy as np
import pytest

from pipeline.metrics import neighbours


def normal(num, num_features, seed, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, (num, num_features))


@pytest.fixture(params=[2**24, 100])
def chunked(request, monkeypatch):
    """Large matrices whole, and a few rows at a time."""
    monkeypatch.setattr(neighbours, "CELLS_AT_ONCE", request.param)


def test_nearest_finds_a_copied_image_at_distance_zero(chunked):
    reference = normal(50, 6, 0, shift=100.0)
    features = np.concatenate([normal(10, 6, 1, shift=100.0), reference[[7]]])
    indices, distances = neighbours.nearest(features=features, reference=reference)
    slow = np.linalg.norm(features[:, None] - reference[None], axis=2)
    assert indices.tolist() == slow.argmin(1).tolist()
    assert distances == pytest.approx(slow.min(1), abs=1e-9)
    assert (indices[-1], distances[-1]) == (7, 0.0)
    assert neighbours.nearest(features=features[:0], reference=reference)[1].tolist() == []


def test_distances_to_neighbours_on_a_line_worked_by_hand():
    rows = np.array([[0.0], [1.0], [3.0], [7.0]])
    found = neighbours.neighbour_distances(rows, (1, 3, 4))
    assert found[:, 0].tolist() == [1, 1, 2, 4]
    assert found[:, 1].tolist() == [7, 6, 4, 7]
    assert np.isinf(found[:, 2]).all()  # there are but three others


@pytest.mark.parametrize("shift", [0.0, 0.8, 30.0])
def test_neighbourhoods_equal_prdc(shift, chunked):
    prdc = pytest.importorskip("prdc")
    features, reference = normal(40, 4, 0, shift=shift, scale=0.8), normal(70, 4, 1)
    result = neighbours.neighbourhoods(features=features, reference=reference)
    by_k = {k: oracle(prdc, reference, features, k) for k in (3, 5)}
    assert result.precise.mean() == by_k[3]["precision"]
    assert result.recalled.mean() == by_k[3]["recall"]
    assert result.density.mean() == pytest.approx(by_k[5]["density"], abs=1e-12)
    assert result.covered.mean() == by_k[5]["coverage"]


def oracle(prdc, reference, features, k):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):  # it prints the numbers of rows
        return prdc.compute_prdc(real_features=reference, fake_features=features, nearest_k=k)


def test_samples_that_are_the_real_images_lie_all_within_reach():
    rows = normal(60, 5, 2)
    result = neighbours.neighbourhoods(features=rows.copy(), reference=rows)
    assert result.precise.all()
    assert result.recalled.all()
    assert result.covered.all()
    # each of 60 reaches holds its own image and the 4 nearest, not the 5th that it ends at
    assert result.density.mean() == pytest.approx(1.0)


def test_what_lies_just_at_the_reach_is_within_it_for_precision_and_recall_only():
    rows = np.array([[-5.0], [-3], [-1], [1], [3], [5]])  # the reach of 5 is 6 to its third neighbour, 10 to its fifth
    others = np.array([[11.0], [-11], [15], [-15], [200], [-200]])
    result = neighbours.neighbourhoods(features=others, reference=rows)
    assert result.precise.tolist() == [True, True, False, False, False, False]
    # 11 is nearer than 10 to 5, and just 8, its reach, from 3; 15 is just 10 from 5
    assert (5 * result.density).tolist() == [1, 1, 0, 0, 0, 0]
    swapped = neighbours.neighbourhoods(features=rows, reference=others)
    assert swapped.recalled.tolist() == [True, True, False, False, False, False]


def test_too_few_rows_have_no_neighbourhoods():
    assert neighbours.neighbourhoods(features=normal(5, 2, 0), reference=normal(9, 2, 1)) is None


def test_memorised_worked_by_hand():
    reference = np.array([[0.0], [10.0], [11.0]])
    # to 0, whose neighbour is at 10: 9 is nearer to 10, at 1, whose neighbour is at 1: not below it
    features = np.array([[4.0], [9.0], [10.4], [-9.5], [-10.5]])
    found = neighbours.memorised(features=features, reference=reference)
    assert found.tolist() == [True, False, True, True, False]


def test_fresh_samples_are_memorised_as_often_as_chance_has_it_and_copies_always():
    reference, fresh = normal(400, 6, 0), normal(400, 6, 1)
    copies = reference[:50] + 1e-3
    assert 0.3 < neighbours.memorised(features=fresh, reference=reference).mean() < 0.7
    assert neighbours.memorised(features=copies, reference=reference).all()
