import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import detection, reference, resampling
from pipeline.metrics.detection import evaluate_detections, resampled
from tests.metrics.conftest import repeated


def judged(detection_set, seed, kind):
    """A set without equal scores, its result and per-image table."""
    found, truth, num_images, num_classes = detection_set(seed, kind)
    found.scores = np.random.default_rng(seed).permutation(len(found.scores)) / max(1, len(found.scores))
    result = evaluate_detections(
        predictions=found, targets=truth, num_images=num_images, num_classes=num_classes, kind=kind
    )
    return found, truth, num_images, num_classes, result, pa.table(detection.per_image(result))


@pytest.mark.parametrize("kind", ["boxes", "keypoints"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_resample_equals_pycocotools_on_images_repeated_so_often(detection_set, kind, seed):
    found, truth, num_images, num_classes, _, table = judged(detection_set, seed, kind)
    weights = np.random.default_rng(seed).integers(0, 4, (3, num_images))
    drawn = resampled(table, weights, kind=kind)
    for row, counts in enumerate(weights):
        images = np.repeat(np.arange(num_images), counts)
        if not len(images):
            continue
        _, stats = reference.curves(
            predictions=repeated(found, images),
            targets=repeated(truth, images),
            num_images=len(images),
            num_classes=num_classes,
            kind=kind,
        )
        for (name, values), expected in zip(drawn.items(), stats, strict=True):
            assert values[row] == pytest.approx(np.nan if expected < 0 else expected, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["boxes", "keypoints"])
def test_each_image_once_gives_the_figures_themselves(detection_set, kind, compiled):
    for seed in range(10):
        *_, num_images, _, result, table = judged(detection_set, seed, kind)
        drawn = resampled(table, np.ones((2, num_images), np.uint16), kind=kind, compiled=compiled)
        assert list(drawn) == list(result.metrics)
        for name, value in result.metrics.items():
            assert drawn[name].tolist() == pytest.approx([np.nan if value is None else value] * 2, nan_ok=True)


def test_compiled_and_not_agree(detection_set):
    *_, num_images, _, _, table = judged(detection_set, 3, "boxes")
    weights = np.random.default_rng(0).integers(0, 3, (300, num_images)).astype(np.uint16)
    plain, compiled = (resampled(table, weights, compiled=choice) for choice in (False, True))
    assert list(plain) == list(detection.METRICS)
    for name, values in plain.items():
        np.testing.assert_allclose(compiled[name], values, rtol=1e-13)


def test_chosen_figures_alone(detection_set):
    *_, num_images, _, _, table = judged(detection_set, 3, "boxes")
    weights = np.random.default_rng(0).integers(0, 3, (5, num_images))
    some, every = resampled(table, weights, names=["map", "mar100"]), resampled(table, weights)
    assert list(some) == ["map", "mar100"]
    np.testing.assert_array_equal(some["map"], every["map"])
    assert resampled(table, weights, names=["map_small"])["map_small"].tolist() == pytest.approx(
        every["map_small"].tolist(), nan_ok=True
    )


def test_a_resample_that_draws_no_image_is_undefined(detection_set):
    *_, num_images, _, _, table = judged(detection_set, 3, "boxes")
    assert all(np.isnan(values).all() for values in resampled(table, np.zeros((2, num_images), int)).values())


def test_nothing_found_and_nothing_to_find():
    empty = detection.DetectionColumns(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
    truth = detection.ObjectColumns(
        np.zeros(1, int), np.zeros(1, int), np.array([[0, 0, 9, 9.0]]), np.array([81.0]), np.zeros(1, bool)
    )
    result = evaluate_detections(predictions=empty, targets=truth, num_images=2, num_classes=1)
    drawn = resampled(pa.table(detection.per_image(result)), np.array([[1, 1], [0, 2]]))
    np.testing.assert_array_equal(drawn["map"], [0, np.nan])


def test_levels_are_counted_as_a_search_among_them_does():
    exact = np.arange(101) / 100 >= resampling.RECALL_LEVELS
    for total in (1, 7, 25, 100, 700, 1234):
        found = np.arange(total + 1)[:, None]
        expected = np.searchsorted(resampling.RECALL_LEVELS, found[:, 0] / total, side="right")
        expected[0] = 0  # level 0 belongs to the first true positive
        assert resampling._levels_reached(found, np.array([total]), exact)[:, 0].tolist() == expected.tolist()


def test_scores_stay_exact_in_the_table(detection_set):
    *_, result, table = judged(detection_set, 4, "boxes")
    assert table.column("scores").type == pa.list_(pa.float64())
    result.matches.scores[:] = 0.5
    assert pa.table(detection.per_image(result)).column("scores").type == pa.list_(pa.float32())
