import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.models import layers
from pipeline.models.classification import mlp
from pipeline.structures import DatasetInfo


def info(side=4):
    size = None if side is None else [side, side]
    return DatasetInfo("toy", ["classification"], ["a", "b", "c"], 1, "none", "none", "drawn here",
                       mean=[0.5], std=[0.25], image_size=size)  # fmt: skip


def numbers(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("activation", list(layers.ACTIVATIONS))
def test_every_activation_has_the_parameters_of_its_layers(activation):
    pieces = layers.pieces(activation)
    network = mlp.build(info(), hidden=[6, 5], activation=activation)
    # 16 pixels to 6, 6 to 5, 5 to 3 classes, each with its bias; maxout has each hidden weight twice
    assert numbers(network) == pieces * (16 * 6 + 6) + pieces * (6 * 5 + 5) + 5 * 3 + 3
    assert network(torch.rand(2, 1, 4, 4)).shape == (2, 3)


def test_an_answer_by_hand():
    network = mlp.build(info(side=1), hidden=[1], activation="sigmoid")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(2.0)
    # pixel 0.75 is normalised to 1; hidden sigmoid(2 * 1 + 2); logits 2 * hidden + 2
    want = 2 / (1 + torch.exp(torch.tensor(-4.0))) + 2
    assert torch.allclose(network(torch.full((1, 1, 1, 1), 0.75)), want.expand(1, 3))


def test_without_a_hidden_layer_it_is_linear():
    network = mlp.build(info(), hidden=[])
    first, second = torch.rand(2, 1, 1, 4, 4)
    middle = network((first + second) / 2)
    assert torch.allclose(middle, (network(first) + network(second)) / 2, atol=1e-6)


def test_gradients_fade_through_sigmoids_and_not_through_rectifiers():
    shares = {}
    for activation in ("sigmoid", "relu"):
        torch.manual_seed(0)
        network = mlp.build(info(), hidden=[32] * 6, activation=activation)
        network(torch.rand(64, 1, 4, 4)).logsumexp(1).sum().backward()
        first, *_, last = [layer.weight.grad.norm().item() for layer in network if isinstance(layer, torch.nn.Linear)]
        shares[activation] = first / last
    assert shares["sigmoid"] < 1e-3
    assert shares["relu"] > 100 * shares["sigmoid"]


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_norm_and_dropout_stand_in_every_layer(norm):
    network = mlp.build(info(), hidden=[8, 8], norm=norm, dropout=0.5, activation="maxout")
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in network) == 2
    assert network(torch.rand(4, 1, 4, 4)).shape == (4, 3)


def test_images_of_several_sizes_are_refused():
    with pytest.raises(
        PipelineError, match=r"classification/mlp needs images of one size; fix: set training.image_size"
    ):
        mlp.build(info(side=None))
