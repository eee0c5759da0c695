import numpy as np
import torch
from torch import nn

from pipeline.data.store import decode_image
from pipeline.models import tasks
from pipeline.params import Defaults
from pipeline.structures import DatasetInfo, Prediction
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.inference import Network, columns


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


class Given:
    """As much of params as a network reads."""

    defaults = Defaults(device="cpu", precision="float32", threads=1, seed=0, training={})


def test_folded_batch_norms_give_the_same_answers():
    torch.manual_seed(0)
    model_params = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8], "small_stem": True}
    info = DatasetInfo("toy", [], ["a", "b", "c"], 1, "", "", "", mean=[0.5], std=[0.3], image_size=[16, 16])
    model = tasks.build("classification/resnet", info, model_params)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.running_mean, norm.weight.data, norm.bias.data):
                values.normal_()
            norm.running_var.uniform_(0.5, 2)
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    checkpoint = Checkpoint("classification/resnet", model_params, info, arrays)
    images = list(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1)).astype(np.uint8))
    plain, folded = (Network(Given(), checkpoint, fold=fold) for fold in (False, True))
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.model.modules())
    for before, after in zip(plain(images), folded(images), strict=True):
        np.testing.assert_allclose(after["scores"], before["scores"], atol=1e-5)
        assert 0.01 < before["scores"].min() < before["scores"].max() < 0.99
