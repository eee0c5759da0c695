import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline import paths
from pipeline.data.store import to_row, writing
from pipeline.errors import ParamsError
from pipeline.models import tasks
from pipeline.models.initialisation import initialise
from pipeline.params import Defaults, Visualisation
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import Checkpoint
from pipeline.visualise import initialisation

MODEL = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4], "small_stem": True}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Given:
    """As much of params as a method reads."""

    defaults = Defaults(device="cpu", precision="float32", threads=1, seed=0, training={})


def entry(inputs="raw/toy"):
    return Visualisation(module="initialisation", method="activations", dataset="toy", inputs=inputs, options={})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a dataset of noise and a run's checkpoint."""
    monkeypatch.chdir(tmp_path)
    info = DatasetInfo("toy", ["classification"], ["a", "b"], 1, "none", "none", "here")
    rng = np.random.default_rng(0)
    with writing(paths.raw("toy"), info) as writer:
        for i in range(40):
            writer.add(
                "train", to_row(Sample(f"{i}", "", rng.integers(0, 256, (8, 8, 1)).astype(np.uint8), label=i % 2))
            )
    info = DatasetInfo("toy", ["classification"], ["a", "b"], 1, "", "", "", mean=[0.5], std=[0.3], image_size=[8, 8])
    model = tasks.build("classification/resnet", info, MODEL)
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    checkpoints.save(paths.checkpoint("small"), Checkpoint("classification/resnet", MODEL, info, arrays))
    return tmp_path


def test_statistics_by_hand():
    mean, std = initialisation.statistics([np.array([1.0, 3.0]), np.array([-2.0, -2.0, 1.0])])
    assert mean.tolist() == [2, -1]
    assert std.tolist() == pytest.approx([1, math.sqrt(2)])


def test_outputs_are_what_the_layers_give_before_their_activations():
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    network[1].weight.data, network[1].bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    network[3].weight.data, network[3].bias.data = torch.tensor([[2.0, 5.0]]), torch.tensor([1.0])
    first, second = initialisation.outputs(network, torch.full((1, 1, 1, 1), 3.0))
    assert first.tolist() == [3, -3]
    assert second.tolist() == [7]  # 2 * 3 + 5 * 0 + 1
    assert not network[1]._forward_hooks


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_outputs_on_a_gpu_are_those_of_the_cpu():
    info = DatasetInfo("toy", [], ["a"], 1, "", "", "", mean=[0.5], std=[0.29], image_size=[8, 8])
    network, images = initialisation.perceptron(info, depth=4, width=32, activation="relu"), torch.rand(8, 1, 8, 8)
    initialise(network, "kaiming")
    expected = initialisation.outputs(network, images)
    found = initialisation.outputs(network.to("cuda"), images.to("cuda"))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


def test_signals_of_a_deep_perceptron_live_die_or_never_begin():
    info = DatasetInfo("toy", [], ["a"], 1, "", "", "", mean=[0.5], std=[0.29], image_size=[8, 8])
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    stds = {}
    for kind in ("zeros", "small_gaussian", "kaiming"):
        network = initialisation.perceptron(info, depth=12, width=512, activation="relu")
        initialise(network, kind, torch.Generator().manual_seed(0))
        stds[kind] = initialisation.statistics(initialisation.outputs(network, images))[1]
    assert len(stds["kaiming"]) == 12
    # the inputs have variance 1: sqrt(64 * 2 / 64) at first, and then the same
    assert all(std == pytest.approx(math.sqrt(2), rel=0.15) for std in stds["kaiming"])
    # sqrt(64) * 0.01 at first, then times sqrt(512 / 2) * 0.01 a layer
    assert stds["small_gaussian"][-1] == pytest.approx(0.08 * 0.16**11, rel=0.2)
    assert not stds["zeros"].any()


@pytest.mark.parametrize("inputs", ["raw/toy", "checkpoints/small"])
def test_pictures_are_drawn_the_same_each_time(project, inputs):
    drawn = []
    for name in ("first", "second"):
        folder = Path(name)
        folder.mkdir()
        title, caption = initialisation.activations(Given(), entry(inputs), folder, depth=4, width=16)
        drawn.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert drawn[0] == drawn[1]
    assert sorted(drawn[0]) == ["histograms.png", "statistics.png"]
    assert all(len(content) < 200_000 for content in drawn[0].values())
    with Image.open(folder / "statistics.png") as picture:
        assert picture.width > 800
    assert inputs.partition("/")[2] in title
    assert "40 images" in caption


@pytest.mark.parametrize("activation", ["maxout", "tanh"])
def test_a_perceptron_of_any_activation_keeps_its_width(activation):
    info = DatasetInfo("toy", [], ["a"], 1, "", "", "", mean=[0.5], std=[0.29], image_size=[8, 8])
    network = initialisation.perceptron(info, depth=3, width=10, activation=activation)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_features_have_no_network(project):
    with pytest.raises(ParamsError, match="features/lite0: features have no network; fix: raw/NAME"):
        initialisation.activations(Given(), entry("features/lite0"), project)


@pytest.mark.parametrize("model", ["heads/linear", "regression/linear", "generative/vae", "detection/fcos"])
def test_what_has_no_single_pass_is_told(project, model):
    info = DatasetInfo("toy", [], ["a", "b"], 1, "", "", "", mean=[0.5], std=[0.3], image_size=[8, 8])
    checkpoints.save(paths.checkpoint("other"), Checkpoint(model, {}, info, {}))
    with pytest.raises(ParamsError, match=f"checkpoints/other: {model} is no single pass from image to answer; fix:"):
        initialisation.activations(Given(), entry("checkpoints/other"), project)


def test_an_encoder_that_learns_without_labels_is_shown(project):
    info = DatasetInfo("toy", [], ["a", "b"], 1, "", "", "", mean=[0.5], std=[0.3], image_size=[8, 8])
    options = {"encoder_params": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}, "small_stem": True, "memory": 8}
    checkpoints.save(paths.checkpoint("encoder"), Checkpoint("classification/rotation", options, info, {}))
    initialisation.activations(Given(), entry("checkpoints/encoder"), project, kinds=["kaiming"])
    assert (project / "statistics.png").exists()


def test_pretrained_layers_begin_anew_as_all_others(project, monkeypatch):
    info = DatasetInfo("toy", [], [], 3, "", "", "", image_size=[32, 32], semantic_classes=["a", "b"])
    options = {"decoder_channels": [4, 4, 4, 4, 4]}  # the weights of the encoder are, by default, pretrained
    checkpoints.save(paths.checkpoint("maps"), Checkpoint("segmentation/unet", options, info, {}))
    given = {}
    monkeypatch.setattr(initialisation, "_draw_histograms", lambda path, found: given.update(found))
    initialisation.activations(Given(), entry("checkpoints/maps"), project, kinds=["zeros"], num_images=4)
    assert not np.concatenate(given["zeros"]).any()
