import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import matching, overlaps
from pipeline.metrics.detection import AREAS, KINDS, evaluate_detections
from pipeline.metrics.matching import Found, Grid, Truths, by_class_and_score, match, match_best

COCO = Grid(np.linspace(0.5, 0.95, 10), np.array(list(AREAS.values()), np.float64))
HALF = Grid(np.array([0.5]), np.array([[0, 1e10]]))


def found(scores, images=None, labels=None, areas=None):
    num = len(scores)
    zeros = np.zeros(num, np.int64)
    return Found(
        zeros if images is None else np.array(images),
        zeros if labels is None else np.array(labels),
        np.array(scores, np.float64),
        np.full(num, 100.0) if areas is None else np.array(areas, np.float64),
    )


def truths(num, iscrowd=(), areas=None):
    crowd = np.isin(np.arange(num), iscrowd)
    zeros = np.zeros(num, np.int64)
    return Truths(zeros, zeros, np.full(num, 100.0) if areas is None else np.array(areas), crowd, crowd)


def given_overlaps(table):
    table = np.array(table)
    return lambda index, truth, least: table[index, truth]


def matched(shown, truth, table, grid=HALF, **options):
    options = {"num_images": 1, "num_classes": 1, "max_detections": 100} | options
    return match(shown, truth, given_overlaps(table), grid, **options)


@pytest.mark.parametrize("compiled", [False, True])
def test_each_takes_the_free_truth_it_overlaps_most_worked_by_hand(compiled):
    # 0 takes truth 1 (.9); 1 wants it too and must take truth 0 (.6); 2 finds nothing left
    table = [[0.7, 0.9], [0.6, 0.8], [0.8, 0.7]]
    result = matched(found([0.9, 0.8, 0.7]), truths(2), table, compiled=compiled)
    assert result.matched.tolist() == [1, 1, 0]
    # at a threshold of .65 the second finds only what is taken, and the third takes truth 0
    grid = Grid(np.array([0.5, 0.65]), np.array([[0, 1e10]]))
    assert matched(found([0.9, 0.8, 0.7]), truths(2), table, grid, compiled=compiled).matched.tolist() == [3, 1, 2]


@pytest.mark.parametrize("compiled", [False, True])
def test_of_equal_overlaps_the_later_truth_is_taken(compiled):
    # were the first taken, the second detection would find truth 1
    result = matched(found([0.9, 0.8]), truths(2), [[0.7, 0.7], [0.0, 0.7]], compiled=compiled)
    assert result.matched.tolist() == [1, 0]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_crowd_is_taken_again_and_again_and_only_where_nothing_counts(compiled):
    # 0 overlaps the crowd most and takes the truth that counts; 1 and 2 are left to the crowd
    table = [[0.6, 0.9], [0.6, 0.9], [0.1, 0.6]]
    result = matched(found([0.9, 0.8, 0.7]), truths(2, iscrowd=[1]), table, compiled=compiled)
    assert result.matched.tolist() == [1, 1, 1]
    assert result.ignored.tolist() == [0, 1, 1]
    assert result.num_truths.tolist() == [[1]]


def test_a_truth_out_of_range_is_taken_once_and_ignored():
    # area 5000 is medium: in `small` the first detection is ignored, the second is small, free and wrong
    result = matched(found([0.9, 0.8], areas=[5000, 900]), truths(1, areas=[5000.0]), [[0.7], [0.6]], COCO)
    bits = [[(int(row) >> 10 * area) & 1 for area in range(4)] for row in (*result.matched, *result.ignored)]
    assert bits == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]]
    assert result.num_truths.tolist() == [[1, 0, 1, 0]]


def test_only_the_best_of_a_class_in_an_image_are_judged():
    result = matched(found([0.1, 0.9, 0.5]), truths(1), [[0.9], [0.1], [0.1]], max_detections=2)
    assert result.indices.tolist() == [1, 2]
    assert result.ranks.tolist() == [0, 1]
    assert result.matched.tolist() == [0, 0]


def test_an_overlap_of_just_the_threshold_is_enough():
    assert matched(found([0.9]), truths(1), [[0.5]]).matched.tolist() == [1]
    assert matched(found([0.9]), truths(1), [[np.nextafter(0.5, 0)]]).matched.tolist() == [0]


def test_a_threshold_of_one_is_met_by_a_perfect_box_that_rounding_spoilt():
    grid = Grid(np.array([1.0]), np.array([[0, 1e10]]))
    assert matched(found([0.9]), truths(1), [[1 - 1e-11]], grid).matched.tolist() == [1]


def test_more_bits_than_an_integer_has_are_refused():
    with pytest.raises(ValueError, match="20 thresholds times 4 areas"):
        Grid(np.linspace(0, 1, 20), np.zeros((4, 2)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_compiled_and_not_are_equal_to_the_bit(detection_set, kind, seed):
    predictions, targets, num_images, num_classes = detection_set(seed, kind)
    plain, compiled = (
        evaluate_detections(
            predictions=predictions,
            targets=targets,
            num_images=num_images,
            num_classes=num_classes,
            kind=kind,
            compiled=compiled,
        )
        for compiled in (False, True)
    )
    for name, value in vars(plain.matches).items():
        np.testing.assert_array_equal(getattr(compiled.matches, name), value)
    for name in ("final", "precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(compiled.curves, name), getattr(plain.curves, name))
    assert compiled.metrics == plain.metrics


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 0.5])
        ),
        max_size=40,
    )
)
def test_the_packed_order_is_that_of_a_stable_sort(rows):
    labels = np.array([label for label, _ in rows], np.int64)
    scores = np.array([score for _, score in rows], np.float64)
    for compiled in (False, True):
        order = by_class_and_score(labels, scores, 4, compiled=compiled)
        assert order.tolist() == sorted(range(len(rows)), key=lambda i: (labels[i], -scores[i]))


@pytest.mark.parametrize("compiled", [False, True])
def test_scores_that_differ_in_their_last_digit_are_ordered(compiled):
    scores = np.full(5000, 0.7)
    scores[::2] = np.nextafter(0.7, 1)
    order = by_class_and_score(np.zeros(5000, np.int64), scores, 500, compiled=compiled)
    assert order.tolist() == [*range(0, 5000, 2), *range(1, 5000, 2)]


def test_so_many_classes_that_nothing_can_be_packed():
    labels, scores = np.array([2**60, 0, 2**60]), np.array([0.1, 0.2, 0.3])
    assert by_class_and_score(labels, scores, 2**61).tolist() == [1, 2, 0]


def test_voc_lets_a_detection_compete_only_for_its_best_truth():
    # both overlap truth 0 most: the second is wrong, though truth 1 is free and near enough
    table = [[0.9, 0.6], [0.8, 0.7]]
    shown, truth = found([0.9, 0.8]), truths(2)
    right, ignored, starts = match_best(shown, truth, given_overlaps(table), np.array([0.5]), 1)
    assert right.tolist() == [[True, False]]
    assert not ignored.any()
    assert starts.tolist() == [0, 2]
    assert matched(shown, truth, table).matched.tolist() == [1, 1]


def test_voc_ignores_all_that_is_on_a_difficult_object():
    table = [[0.9], [0.8], [0.1]]
    right, ignored, _ = match_best(
        found([0.9, 0.8, 0.7]), truths(1, iscrowd=[0]), given_overlaps(table), np.array([0.5]), 1
    )
    assert not right.any()
    assert ignored.tolist() == [[True, True, False]]


def test_pairs_are_found_in_pieces_of_any_size(detection_set, monkeypatch):
    predictions, targets, num_images, num_classes = detection_set(5, "boxes")
    whole = evaluate_detections(
        predictions=predictions, targets=targets, num_images=num_images, num_classes=num_classes
    )
    monkeypatch.setattr(matching, "NUM_PAIRS_AT_ONCE", 3)
    pieces = evaluate_detections(
        predictions=predictions, targets=targets, num_images=num_images, num_classes=num_classes
    )
    assert whole.metrics["map"] > 0
    np.testing.assert_array_equal(whole.matches.matched, pieces.matches.matched)


def test_boxes_without_area_overlap_nothing():
    overlap = overlaps.of_boxes(
        np.array([[5.0, 5, 0, 0], [0, 0, 10, 10]]), np.array([[5.0, 5, 0, 0]]), np.zeros(1, bool)
    )
    assert overlap(np.array([0, 1]), np.array([0, 0]), 0.5).tolist() == [0, 0]
