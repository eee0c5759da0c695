import numpy as np
import pytest

from pipeline.params import DetectionEvaluation
from pipeline.reporting.verdicts.suppression import described, suppressed
from tests.detections import found, row

CHOICES = DetectionEvaluation.model_fields["suppression"].annotation.__args__


def evaluation(suppression, **options):
    given = {"score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 100, **options}
    return DetectionEvaluation(suppression=suppression, **given)


# In both images the same two boxes, IoU 7/13 = .54, DIoU .505; in the second of different classes.
IMAGES = [found(row(0, 3), [0, 0], [0.8, 0.9]), found(row(0, 3), [0, 1], [0.9, 0.8]), found(row(), [], [])]


@pytest.mark.parametrize(
    ("suppression", "scores"),
    [
        ("greedy", [[0.9], [0.9, 0.8], []]),
        ("agnostic", [[0.9], [0.9], []]),
        ("diou", [[0.9], [0.9, 0.8], []]),
        ("soft_linear", [[0.9, 0.8 * 6 / 13], [0.9, 0.8], []]),
        ("soft_gaussian", [[0.9, 0.8 * np.exp(-2 * (7 / 13) ** 2)], [0.9, 0.8], []]),
        ("fusion", [[0.85], [0.9, 0.8], []]),
    ],
)
def test_images_do_not_meddle_with_each_other(suppression, scores):
    kept = suppressed(IMAGES, evaluation(suppression))
    for one, expected in zip(kept, scores, strict=True):
        assert one.scores.tolist() == pytest.approx(expected)
    assert kept[1].labels.tolist() == [0, 1][: len(scores[1])]


@pytest.mark.parametrize("suppression", CHOICES)
def test_weak_boxes_go_and_the_best_so_many_of_an_image_stay(suppression):
    image = found(row(0, 50, 100, 150), [0, 1, 0, 1], [0.3, 0.01, 0.9, 0.6])
    (kept,) = suppressed([image], evaluation(suppression, max_detections=2))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.6])
    assert kept.boxes[:, 0].tolist() == [100, 150]
    assert kept.labels.tolist() == [0, 1]


def test_every_choice_is_described():
    assert len({described(evaluation(choice)) for choice in CHOICES}) == len(CHOICES) == 6
