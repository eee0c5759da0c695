import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from pipeline.metrics import bootstrap, segmentation
from pipeline.structures import IGNORE

TARGET = np.array([[0, 0, 1], [0, 1, IGNORE]], np.uint8)
LABEL_MAP = np.array([[0, 1, 1], [0, 0, 2]], np.uint8)


def scored(pairs, num_classes):
    """`Counts` of (label map, target) pairs, one image each."""
    found = [segmentation.count(label_map=p, target=t, num_classes=num_classes)[1] for p, t in pairs]
    return segmentation.stacked(found, num_classes)


def random_maps(num=6, shape=(24, 30), num_classes=5, seed=0):
    """Predictions and truths in blocks, partly wrong, partly not scored; the last class never occurs."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num):
        target = np.kron(rng.integers(0, num_classes - 1, (shape[0] // 6, shape[1] // 6)), np.ones((6, 6), int))
        label_map = np.roll(target, rng.integers(0, 3, 2), (0, 1))
        noisy = rng.random(shape) < 0.05
        label_map[noisy] = rng.integers(0, num_classes - 1, noisy.sum())
        target[rng.random(shape) < 0.1] = IGNORE
        label_map[rng.random(shape) < 0.02] = IGNORE
        pairs.append((label_map.astype(np.uint8), target.astype(np.uint8)))
    return pairs


def test_metrics_of_six_pixels_worked_by_hand():
    matrix = segmentation.confusion(label_map=LABEL_MAP, target=TARGET, num_classes=3)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]  # the pixel predicted as 2 is not scored
    result = segmentation.metrics(scored([(LABEL_MAP, TARGET)], 3))
    # class 0: 2 / (3 + 3 - 2), class 1: 1 / (2 + 2 - 1); class 2 occurs nowhere
    assert result["miou"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert result["pixel_accuracy"] == 3 / 5
    assert result["dice"] == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert result["frequency_weighted_iou"] == pytest.approx(3 / 5 * 2 / 4 + 2 / 5 * 1 / 3)
    assert result["boundary_iou"] == result["miou_per_image"] == result["miou"]  # a small image is all outline
    # 0 everywhere: class 0 3 / 5, class 1 0 / 2
    assert result["miou_background_only"] == pytest.approx((3 / 5 + 0) / 2)


def test_a_class_predicted_without_truth_counts_as_zero():
    counts = scored([(np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8))], 3)
    assert segmentation.metrics(counts)["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_a_pixel_predicted_as_ignored_is_wrong():
    target = np.array([[0, 0, 0, 0]], np.uint8)
    matrix = segmentation.confusion(label_map=np.array([[0, 0, 0, IGNORE]], np.uint8), target=target, num_classes=2)
    assert matrix.tolist() == [[3, 0, 1], [0, 0, 0]]
    result = segmentation.metrics(scored([(np.array([[0, 0, 0, IGNORE]], np.uint8), target)], 2))
    assert result["pixel_accuracy"] == 3 / 4
    assert result["miou"] == 3 / 4


def test_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, (40, 30)).astype(np.uint8)
    label_map = np.where(rng.random((40, 30)) < 0.6, target, rng.integers(0, 5, (40, 30))).astype(np.uint8)
    target[rng.random((40, 30)) < 0.1] = IGNORE
    matrix = segmentation.confusion(label_map=label_map, target=target, num_classes=5)
    truth, predicted = target[target != IGNORE], label_map[target != IGNORE]
    assert matrix[:, :5].tolist() == confusion_matrix(truth, predicted).tolist()
    counts = scored([(label_map, target)], 5)
    result = segmentation.metrics(counts)
    assert result["miou"] == pytest.approx(jaccard_score(truth, predicted, average="macro"), abs=1e-12)
    assert result["dice"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-12)
    weighted = jaccard_score(truth, predicted, average="weighted")
    assert result["frequency_weighted_iou"] == pytest.approx(weighted, abs=1e-12)
    ious = [row["iou"] for row in segmentation.per_class(counts, list("abcde"))]
    assert ious == pytest.approx(jaccard_score(truth, predicted, average=None).tolist(), abs=1e-12)


def test_images_are_pooled_not_averaged():
    # one pixel right in one image, three wrong in the other: 1 / 4 pooled, 1 / 2 as a mean of images
    pairs = [(np.zeros((1, 1), int), np.zeros((1, 1), int)), (np.ones((1, 3), int), np.zeros((1, 3), int))]
    result = segmentation.metrics(scored(pairs, 2))
    assert result["pixel_accuracy"] == 1 / 4
    assert result["miou"] == (1 / 4 + 0 / 3) / 2
    assert result["miou_per_image"] == (1 + 0) / 2


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])  # of pixels that break runs
@pytest.mark.parametrize("compiled", [False, True])
def test_confusion_equals_the_loop_over_pixels(share, compiled):
    rng = np.random.default_rng(1)
    values = np.array([0, 1, 2, 3, IGNORE], np.uint8)
    target, label_map = (np.repeat(values[rng.integers(0, 5, (12, 2))], 9, axis=1) for _ in range(2))
    for array in (target, label_map):
        broken = rng.random(array.shape) < share
        array[broken] = values[rng.integers(0, 5, broken.sum())]
    expected = np.zeros((3, 4), int)  # of three classes: 3 is none
    for true, predicted in zip(target.ravel().tolist(), label_map.ravel().tolist(), strict=True):
        if true < 3:
            expected[true, min(predicted, 3)] += 1
    found = segmentation.confusion(label_map=label_map, target=target, num_classes=3, compiled=compiled)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.zeros((3, 2), int), r"a prediction of \(3, 2\) pixels for a truth of \(2, 3\)"),
        (np.full((2, 3), 256), "a value that is not of 0..255"),
        (np.full((2, 3), -1), "a value that is not of 0..255"),
        (np.full((2, 3), 0.5), "a value that is not of 0..255"),
    ],
)
def test_maps_that_cannot_be_are_refused(label_map, message):
    """256 would be taken for class 0, and maps of as many pixels would be laid on each other."""
    target = np.zeros((2, 3), int)
    for count in (segmentation.count, segmentation.confusion, segmentation.boundary_counts):
        with pytest.raises(ValueError, match=message):
            count(label_map=label_map, target=target, num_classes=3)


def test_a_confusion_of_no_pixels_is_empty():
    nothing = np.zeros((0, 4), np.uint8)
    for compiled in (False, True):
        found = segmentation.confusion(label_map=nothing, target=nothing, num_classes=2, compiled=compiled)
        assert found.tolist() == [[0, 0, 0], [0, 0, 0]]


def eroded_band(mask, width):
    """As the authors of boundary IoU have it: the mask less `width` erosions by a 3 x 3 square, zero outside."""
    inside = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=width)[1:-1, 1:-1]
    return mask & ~inside


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("shape", [(24, 30), (11, 40), (6, 6)])
def test_an_outline_is_what_erosions_take_from_each_class(width, shape):
    rng = np.random.default_rng(width)
    label_map = np.kron(rng.integers(0, 3, (3, 3)), np.ones((14, 14), int))[: shape[0], : shape[1]]
    expected = np.zeros(label_map.shape, bool)
    for value in range(3):
        expected |= eroded_band(label_map == value, width)
    assert segmentation.outline(label_map, width).tolist() == expected.tolist()


def test_an_outline_is_two_hundredths_of_the_diagonal_wide():
    assert segmentation.outline_width((480, 640)) == 16  # of 800
    assert segmentation.outline_width((8, 8)) == 1


def test_boundary_iou_of_a_shifted_square_worked_by_hand():
    target, label_map = (np.zeros((50, 50), np.uint8) for _ in range(2))
    target[10:20, 10:20] = 1
    label_map[10:20, 12:22] = 1  # diagonal 70.7: bands of 1 pixel; an outline of 36 pixels
    intersection, union = segmentation.boundary_counts(label_map=label_map, target=target, num_classes=2)
    # in common: the top and bottom sides over 8 columns; of the sides, columns 10 and 19 against 12 and 21: none but
    # where these cross the two rows
    assert (intersection[1], union[1]) == (16, 36 + 36 - 16)


def test_boundary_counts_equal_masks_eroded_one_by_one():
    for label_map, target in random_maps(shape=(60, 66)):
        intersection, union = segmentation.boundary_counts(label_map=label_map, target=target, num_classes=5)
        width, counted = segmentation.outline_width(target.shape), target != IGNORE
        for value in range(5):
            first, second = (eroded_band((m == value) & counted, width) for m in (label_map, target))
            assert (intersection[value], union[value]) == ((first & second).sum(), (first | second).sum())


def test_boundary_iou_pools_the_bands_of_all_images_class_by_class():
    pairs = random_maps(shape=(60, 66))
    width = segmentation.outline_width((60, 66))
    ious = []
    for value in range(4):
        bands = [[eroded_band((m == value) & (pair[1] != IGNORE), width) for m in pair] for pair in pairs]
        ious.append(sum((a & b).sum() for a, b in bands) / sum((a | b).sum() for a, b in bands))
    assert len({round(iou, 3) for iou in ious}) == 4
    counts = scored(pairs, 5)  # the last class occurs nowhere
    assert segmentation.metrics(counts)["boundary_iou"] == pytest.approx(np.mean(ious), rel=1e-12)
    found = [row["boundary_iou"] for row in segmentation.per_class(counts, list("abcde"))]
    assert found == [*(pytest.approx(iou, rel=1e-12) for iou in ious), None]


def test_resampled_with_weights_of_one_equals_the_metrics():
    counts = scored(random_maps(), 5)
    result = segmentation.resampled(segmentation.per_image(counts), np.ones((3, 6), np.uint16))
    assert list(result) == list(segmentation.METRICS)
    for name, value in segmentation.metrics(counts).items():
        assert result[name] == pytest.approx([value] * 3, rel=1e-13), name


def test_a_resample_equals_the_evaluation_of_its_duplicated_images():
    pairs = random_maps()
    weights = bootstrap.weights(6, num_resamples=8)
    result = segmentation.resampled(segmentation.per_image(scored(pairs, 5)), weights)
    for index, row in enumerate(weights):
        copies = [pair for pair, num in zip(pairs, row, strict=True) for _ in range(num)]
        for name, value in segmentation.metrics(scored(copies, 5)).items():
            assert result[name][index] == pytest.approx(value, rel=1e-12), name


def test_where_nothing_is_scored_everything_is_undefined():
    target = np.full((2, 2), IGNORE, np.uint8)
    counts = scored([(np.zeros((2, 2), np.uint8), target)], 3)
    assert segmentation.metrics(counts) == dict.fromkeys(segmentation.METRICS)
    assert segmentation.metrics(segmentation.stacked([], 3)) == dict.fromkeys(segmentation.METRICS)
    assert segmentation.per_image(counts).column("miou").to_pylist() == [None]
    assert {row["iou"] for row in segmentation.per_class(counts, list("abc"))} == {None}
