"""The memory by which encoders without labels are judged, on an encoder that gives its images as they are."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError, PipelineError
from pipeline.models import tasks
from pipeline.models.self_supervised import SelfSupervised, encoder
from pipeline.structures import Batch, DatasetInfo
from pipeline.training.transfer import take

INFO = DatasetInfo("toy", ["classification"], ["x", "y"], 1, "none", "none", "here", mean=[0.0], std=[1.0])
INFO.image_size = [1, 2]


def model(neighbours=2, memory=4):
    """Embeds an image of two pixels as the point that they are."""
    return SelfSupervised(nn.Flatten(), INFO, neighbours=neighbours, memory=memory)


def batch(points, labels):
    images = torch.tensor(points).view(-1, 1, 1, 2)
    return Batch(images, [""] * len(images), [(1, 2)] * len(images), None if labels is None else torch.tensor(labels))


def test_neighbours_weigh_by_their_cosine():
    made = model()
    made.finish([batch([[2.0, 0.0]], [0]), batch([[0.0, 3.0], [-1.0, 0.0]], [1, 1])])
    (found,) = made.predict(torch.tensor([[[[0.8, 0.6]]]]))
    # cosines 0.8, 0.6 and -0.8; the two nearest weigh exp(0.8 / 0.07) and exp(0.6 / 0.07): 1 / (1 + exp(-0.2 / 0.07))
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-0.2 / 0.07)), abs=1e-5)
    assert found.scores.sum() == pytest.approx(1, abs=1e-6)
    assert found.scores.dtype == np.float32


def test_an_empty_memory_knows_nothing_and_a_part_of_one_counts_what_it_has():
    made, image = model(neighbours=3), torch.tensor([[[[0.8, 0.6]]]])
    assert made.predict(image)[0].scores.tolist() == [0.5, 0.5]
    made.finish([batch([[0.0, 1.0]], [1])])
    assert made.classes.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert made.predict(image)[0].scores.tolist() == [0.0, 1.0]


def test_a_memory_that_is_too_small_keeps_evenly_spaced_images():
    made = model(memory=3)
    angles = np.linspace(0, np.pi / 2, 7, dtype=np.float32)
    made.finish([batch(np.stack([np.cos(angles), np.sin(angles)], 1), [0, 0, 0, 1, 1, 1, 1])])
    assert made.classes.tolist() == [[1, 0, 0], [0, 1, 1]]  # of images 0, 3 and 6
    want = torch.tensor([[1, 0], [np.sqrt(0.5), np.sqrt(0.5)], [0, 1]], dtype=torch.float32)
    torch.testing.assert_close(made.embeddings, want, atol=1e-6, rtol=0)
    assert made.training


def test_the_memory_is_part_of_the_weights():
    info = DatasetInfo("toy", [], ["a", "b"], 1, "", "", "", mean=[0.5], std=[0.2], image_size=[8, 8])
    params = {"encoder_name": "resnet10t", "neighbours": 2, "memory": 4}
    made = tasks.build("classification/rotation", info, params)
    images = torch.rand(3, 1, 8, 8)
    made.finish([Batch(images, ["", "", ""], [(8, 8)] * 3, torch.tensor([0, 1, 1]))])
    arrays = {key: value.numpy() for key, value in made.state_dict().items()}
    again = tasks.restore("classification/rotation", info, params, arrays)
    with torch.inference_mode():
        found, want = again.predict(images), made.eval().predict(images)
    assert [one.scores.tolist() for one in found] == [one.scores.tolist() for one in want]
    assert found[0].scores.argmax() == 0


def test_a_classifier_of_the_same_network_begins_at_all_of_the_encoders_weights():
    info = DatasetInfo("toy", [], ["a", "b"], 1, "", "", "", mean=[0.5], std=[0.2], image_size=[8, 8])
    layers = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}
    made = tasks.build("classification/contrastive", info, {"encoder_params": layers, "small_stem": True})
    classifier = tasks.build("classification/resnet", info, {**layers, "small_stem": True})
    arrays = {key: value.numpy() for key, value in made.state_dict().items()}
    said = take(classifier, arrays, "here")
    own = classifier.state_dict()
    assert said == f"{len(own) - 2} of {len(own)} tensors taken; new are network.1.fc.weight, network.1.fc.bias"
    images = torch.rand(2, 1, 8, 8)
    features = classifier.network[1].forward_head(
        classifier.network[1].forward_features(classifier.network[0](images)), pre_logits=True
    )
    torch.testing.assert_close(features, made.network(images))


def test_what_does_not_work_is_told():
    with pytest.raises(PipelineError, match="images without class labels"):
        model().finish([batch([[0.0, 1.0]], None)])
    with pytest.raises(ParamsError, match="timm has no such model"):
        encoder("resnet1888", INFO, small_stem=False, encoder_params={})
    for name, kind in (("mobilenetv3_small_050", "MobileNetV3"), ("resnet10t", "ResNet")):  # the latter's has three
        with pytest.raises(
            ParamsError, match=f"small_stem: a {kind} that does not begin with a convolution and a pool"
        ):
            encoder(name, INFO, small_stem=True, encoder_params={})
