import numpy as np

from pipeline.data.store import decode_image
from pipeline.structures import Prediction
from pipeline.training.inference import columns


def test_boxes_come_back_in_pixels_of_the_original():
    prediction = Prediction(
        boxes=np.array([[10, 20, 30, 40]], np.float32), scores=np.ones(1, np.float32), labels=np.zeros(1, int)
    )
    # predicted at 100 x 200 (height, width), stored at 50 x 600: y halves, x triples
    assert columns(prediction, (100, 200), (50, 600))["boxes"][0].tolist() == [30, 10, 90, 20]


def test_label_maps_come_back_at_the_size_of_the_original():
    label_map = np.array([[1, 2], [3, 4]], np.uint8)
    found = decode_image(columns(Prediction(label_map=label_map), (2, 2), (4, 6))["label_map"], 1)[..., 0]
    assert found.tolist() == [[1, 1, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 4, 4, 4]] * 2


def test_scores_stay():
    scores = np.array([0.2, 0.8], np.float32)
    assert columns(Prediction(scores=scores), (2, 2), (4, 6)) == {"scores": scores}
