import numpy as np
import pytest

from pipeline.metrics import bootstrap, panoptic
from pipeline.structures import Segments

CLASSES = ["cat", "dog", "sky", "road", "sea"]
IS_THING = [True, True, False, False, False]


def segments(ids, labels):
    """A map and the label of each of its segments 1, 2, ..."""
    labels = np.array(labels, np.int64)
    return Segments(np.array(ids, np.int32), np.arange(1, len(labels) + 1), labels)


def random_pair(rng, shape=(24, 30)):
    """A prediction in rectangles beside a truth in others, with void, two crowds and one class that never occurs."""
    labels = rng.integers(0, 4, 7)
    crowd = np.zeros(7, bool)
    crowd[0], crowd[1] = True, True
    labels[:2] = [0, 1]
    ids = np.zeros((2, *shape), np.int32)
    for which in range(2):
        ids[which] = np.arange(1, 8)[np.arange(shape[1]) * 7 // shape[1]]
        for _ in range(6):
            y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
            ids[which, y : y + rng.integers(3, 14), x : x + rng.integers(3, 14)] = rng.integers(0, 8)
    shifted = np.where(rng.random(shape) < 0.7, ids[0], ids[1])
    guessed = np.where(rng.random(7) < 0.7, labels, rng.integers(0, 4, 7))
    present = np.isin(np.arange(1, 8), shifted)
    renumbered = np.append(0, rng.permutation(9)[:7] * 1000 + 7)  # ids need not follow each other
    prediction = Segments(renumbered[shifted].astype(np.int32), renumbered[1:][present], guessed[present])
    occurs = np.isin(np.arange(1, 8), ids[0])
    return prediction, Segments(ids[0], np.arange(1, 8)[occurs], labels[occurs]), crowd[occurs]


def slow_counts(prediction, target, crowd, num_classes):
    """Pair by pair, as the paper and panopticapi's `pq_compute_single_core` define it."""
    iou, tp, fp, fn = (np.zeros(num_classes) for _ in range(4))
    void = ~np.isin(target.ids, target.segment_ids)
    matched, taken = set(), set()
    for g, (gid, glabel) in enumerate(zip(target.segment_ids, target.labels, strict=True)):
        for p, (pid, plabel) in enumerate(zip(prediction.segment_ids, prediction.labels, strict=True)):
            if crowd[g] or glabel != plabel:
                continue
            first, second = target.ids == gid, (prediction.ids == pid) & ~void
            overlap = (first & second).sum() / (first | second).sum()
            if overlap > 0.5:
                tp[glabel] += 1
                iou[glabel] += overlap
                matched.add(g)
                taken.add(p)
    for g, label in enumerate(target.labels):
        fn[label] += g not in matched and not crowd[g]
    for p, (pid, label) in enumerate(zip(prediction.segment_ids, prediction.labels, strict=True)):
        own = prediction.ids == pid
        forgiven = void.copy()
        for g, gid in enumerate(target.segment_ids):
            if crowd[g] and target.labels[g] == label:
                forgiven |= target.ids == gid
        fp[label] += p not in taken and (own & forgiven).sum() / own.sum() <= 0.5
    return iou, tp, fp, fn


def test_quality_worked_by_hand():
    # cat of 6 pixels found by 5 of them: IoU 5/6; the sky's 4 remaining pixels by 5: IoU 4/5; a dog predicted in void
    target = segments([[1, 1, 1, 0], [1, 1, 1, 0], [2, 2, 2, 2]], [0, 2])
    prediction = segments([[1, 1, 1, 3], [1, 1, 2, 3], [2, 2, 2, 2]], [0, 2, 1])
    counts = panoptic.match(prediction=prediction, target=target, num_classes=5)
    assert counts.iou.tolist() == [5 / 6, 0, 4 / 5, 0, 0]
    assert counts.tp.tolist() == [1, 0, 1, 0, 0]
    assert counts.fp.tolist() == counts.fn.tolist() == [0] * 5


def test_half_an_overlap_is_no_match():
    target, prediction = segments([[1, 1, 2, 2]], [0, 2]), segments([[1, 2, 2, 2]], [0, 2])
    counts = panoptic.match(prediction=prediction, target=target, num_classes=5)
    # the cat: 1 of 2 pixels, not more than half; the sky: 2 of 3
    assert (counts.fp[0], counts.fn[0], counts.tp[2], counts.iou[2]) == (1, 1, 1, 2 / 3)


def test_a_prediction_on_a_crowd_of_its_class_is_no_mistake():
    target = segments([[1, 1, 1, 2]], [0, 2])
    prediction = segments([[1, 1, 1, 2]], [0, 2])
    crowd = np.array([True, False])
    counts = panoptic.match(prediction=prediction, target=target, num_classes=5, iscrowd=crowd)
    assert (counts.tp[0], counts.fp[0], counts.fn[0]) == (0, 0, 0)
    dog = segments([[1, 1, 1, 2]], [1, 2])
    assert panoptic.match(prediction=dog, target=target, num_classes=5, iscrowd=crowd).fp[1] == 1


def test_all_crowds_of_a_class_forgive_together():
    target = segments([[1, 1, 2, 2, 3]], [0, 0, 2])
    prediction = segments([[1, 1, 1, 1, 1]], [0])  # two fifths on each of two crowds; panopticapi sees the last alone
    crowd = np.array([True, True, False])
    counts = panoptic.match(prediction=prediction, target=target, num_classes=5, iscrowd=crowd)
    assert counts.fp.tolist() == [0] * 5


@pytest.mark.parametrize("seed", range(12))
def test_counts_equal_the_slow_reference(seed):
    prediction, target, crowd = random_pair(np.random.default_rng(seed))
    counts = panoptic.match(prediction=prediction, target=target, num_classes=5, iscrowd=crowd)
    expected = slow_counts(prediction, target, crowd, 5)
    assert counts.iou == pytest.approx(expected[0], abs=1e-12)
    assert [values.tolist() for values in counts[1:]] == [values.tolist() for values in expected[1:]]


DOCUMENTED = (
    ["60 00 60 60", "00 00 60 01", "00 00 60 01", "00 70 60 10", "00 70 70 70"],
    ["60 01 60 01", "01 01 60 01", "01 01 60 10", "01 70 10 10", "01 70 70 70"],
)
"""Category and instance of each pixel, predicted and true, in the documentation of torchmetrics' PanopticQuality."""


def of_pairs(pairs):
    """Segments of a map of (category, instance), stuff without instances; categories 0, 1 are things, 6, 7 stuff."""
    pairs = np.array(pairs)
    pairs[..., 1][pairs[..., 0] > 5] = 0
    found, ids = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    labels = np.array([{0: 0, 1: 1, 6: 2, 7: 3}[category] for category in found[:, 0].tolist()])
    return Segments(ids.reshape(pairs.shape[:2]).astype(np.int32) + 1, np.arange(1, len(found) + 1), labels)


def test_the_documented_map_of_torchmetrics():
    prediction, target = (
        of_pairs([[[int(digit) for digit in pair] for pair in row.split()] for row in rows]) for rows in DOCUMENTED
    )
    result = panoptic.evaluate(predictions=[prediction], targets=[target], classes=CLASSES[:4], is_thing=IS_THING[:4])
    assert [result.metrics[name] for name in ("pq", "sq", "rq")] == pytest.approx([0.5463, 0.6111, 0.6667], abs=5e-5)
    assert [row["pq"] for row in result.per_class] == pytest.approx([0.5185, 0.0, 0.6667, 1.0], abs=5e-5)
    assert result.metrics["pq_stuff"] == pytest.approx((2 / 3 + 1) / 2)


def test_random_maps_equal_torchmetrics():
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.detection import panoptic_quality

    rng = np.random.default_rng(5)
    predictions, targets, first, second = [], [], [], []
    for _ in range(6):
        maps = np.kron(rng.integers(0, 4, (2, 4, 5)), np.ones((5, 4), int))
        noisy = np.where(rng.random(maps[0].shape) < 0.55, maps[1], maps[0])
        categories = np.array([0, 1, 6, 7])
        pairs = [np.stack([categories[m], np.zeros_like(m)], -1) for m in (noisy, maps[0])]
        first.append(pairs[0])
        second.append(pairs[1])
        predictions.append(of_pairs(pairs[0]))
        targets.append(of_pairs(pairs[1]))
    result = panoptic.evaluate(predictions=predictions, targets=targets, classes=CLASSES[:4], is_thing=IS_THING[:4])
    expected = panoptic_quality(
        torch.tensor(np.stack(first)), torch.tensor(np.stack(second)), {0, 1}, {6, 7}, return_sq_and_rq=True
    )
    assert [result.metrics[name] for name in ("pq", "sq", "rq")] == pytest.approx(
        expected.tolist(), abs=1e-7
    )  # float32
    assert result.metrics["rq"] < 1


def evaluated(pairs):
    return panoptic.evaluate(
        predictions=[p for p, _, _ in pairs],
        targets=[t for _, t, _ in pairs],
        crowds=[c for _, _, c in pairs],
        classes=CLASSES,
        is_thing=IS_THING,
    )


def test_a_class_that_never_occurs_is_left_out():
    result = evaluated([random_pair(np.random.default_rng(seed)) for seed in range(4)])
    assert result.per_class[4] == {"class": "sea", "pq": None, "sq": None, "rq": None, "tp": 0, "fp": 0, "fn": 0}
    rows = result.per_class[:4]
    assert result.metrics["pq"] == pytest.approx(np.mean([row["pq"] for row in rows]))
    assert result.metrics["sq_things"] == pytest.approx(np.mean([row["sq"] for row in rows[:2]]))
    assert result.metrics["rq_stuff"] == pytest.approx(np.mean([row["rq"] for row in rows[2:]]))


def test_a_resample_equals_the_evaluation_of_its_duplicated_images():
    pairs = [random_pair(np.random.default_rng(seed)) for seed in range(8)]
    weights = np.vstack([np.ones((1, 8), np.uint16), bootstrap.weights(8, num_resamples=6)])
    result = panoptic.resampled(evaluated(pairs).per_image, weights)
    assert list(result) == list(panoptic.METRICS)
    for index, row in enumerate(weights):
        copies = [pair for pair, num in zip(pairs, row, strict=True) for _ in range(num)]
        for name, value in evaluated(copies).metrics.items():
            assert result[name][index] == pytest.approx(value, rel=1e-12), name


def test_what_cannot_be_matched_is_refused():
    good = segments([[1, 1]], [0])
    for bad, message in (
        (segments([[1, 1, 1]], [0]), r"image 0: .*\(1, 3\) pixels"),
        (segments([[1, 2]], [0]), "segment 2 of the prediction"),
        (segments([[1, 1]], [5]), "label 5 of 5"),
    ):
        with pytest.raises(ValueError, match=message):
            panoptic.evaluate(predictions=[bad], targets=[good], classes=CLASSES, is_thing=IS_THING)


def test_a_predicted_segment_without_a_pixel_is_refused():
    """As panopticapi does; it would count as a mistake."""
    target = segments([[1, 1, 2, 2]], [0, 2])
    with pytest.raises(ValueError, match="segment 3 of the prediction has no pixel"):
        panoptic.match(prediction=segments([[1, 1, 2, 2]], [0, 2, 2]), target=target, num_classes=5)


def test_crowds_may_be_told_by_0_and_1():
    target = segments([[1, 1, 2, 2]], [0, 2])
    counts = panoptic.match(prediction=target, target=target, num_classes=5, iscrowd=np.array([0, 1]))
    assert (counts.tp.tolist(), counts.fn.tolist()) == ([1, 0, 0, 0, 0], [0] * 5)


@pytest.mark.parametrize(("kind", "other"), [("things", "stuff"), ("stuff", "things")])
def test_classes_of_one_kind_have_no_figures_of_the_other(kind, other):
    pairs = [random_pair(np.random.default_rng(seed)) for seed in range(4)]
    predictions, targets, crowds = zip(*pairs, strict=True)
    both, one = (
        panoptic.evaluate(predictions=predictions, targets=targets, classes=CLASSES, is_thing=is_thing, crowds=crowds)
        for is_thing in (IS_THING, [kind == "things"] * 5)
    )
    for quality in ("pq", "sq", "rq"):
        assert one.metrics[f"{quality}_{kind}"] == one.metrics[quality] == pytest.approx(both.metrics[quality])
        assert one.metrics[f"{quality}_{other}"] is None
    weights = bootstrap.weights(4, num_resamples=3, seed=1)
    drawn, again = (panoptic.resampled(result.per_image, weights) for result in (both, one))
    assert again["pq"] == pytest.approx(drawn["pq"])
    assert np.isnan(again[f"pq_{other}"]).all()


def test_nothing_predicted_is_zero_and_nothing_at_all_undefined():
    nothing, cat = segments([[0, 0]], []), segments([[1, 1]], [0])
    result = evaluated([(nothing, cat, np.zeros(1, bool))])
    assert (result.metrics["pq"], result.metrics["pq_stuff"]) == (0.0, None)
    assert evaluated([(nothing, nothing, np.zeros(0, bool))]).metrics == dict.fromkeys(panoptic.METRICS)
    assert evaluated([]).metrics == dict.fromkeys(panoptic.METRICS)
    empty = Segments(np.zeros((0, 3), np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert panoptic.match(prediction=empty, target=empty, num_classes=5).tp.tolist() == [0] * 5
