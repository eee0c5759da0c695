import math

import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.initialisation import KINDS, initialise

FAN_IN, FAN_OUT = 400, 300


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def initialised(module, kind):
    initialise(module, kind, generator())
    return module


@pytest.mark.parametrize(
    ("kind", "std"),
    [
        ("small_gaussian", 0.01),
        ("xavier", math.sqrt(2 / (FAN_IN + FAN_OUT))),
        ("kaiming", math.sqrt(2 / FAN_IN)),
    ],
)
def test_weights_have_the_std_of_the_formula_and_biases_are_zero(kind, std):
    layer = initialised(nn.Linear(FAN_IN, FAN_OUT), kind)
    # 120,000 draws: the standard error of their std is below 0.3 %, that of their mean 0.3 % of the std
    assert layer.weight.std().item() == pytest.approx(std, rel=0.01)
    assert layer.weight.mean().item() == pytest.approx(0, abs=0.01 * std)
    assert not layer.bias.any()


def test_xavier_is_uniform_up_to_its_bound():
    weight = initialised(nn.Linear(FAN_IN, FAN_OUT), "xavier").weight
    bound = math.sqrt(6 / (FAN_IN + FAN_OUT))
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.001)
    assert weight.abs().max() <= bound


def test_fans_of_convolutions_count_their_window():
    # 64 channels * 3 * 3
    weight = initialised(nn.Conv2d(64, 128, 3), "kaiming").weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.01)
    weight = initialised(nn.ConvTranspose2d(64, 128, 3), "kaiming").weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.01)


def test_zeros_are_zero_and_default_changes_nothing():
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.clone()
    assert torch.equal(initialised(layer, "default").weight, before)
    initialised(layer, "zeros")
    assert not layer.weight.any()
    assert not layer.bias.any()


def test_what_is_pretrained_fixed_or_zero_on_purpose_stays():
    pretrained, fixed, last = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False), nn.Conv2d(4, 4, 1)
    holder = nn.Sequential(pretrained)
    holder.is_pretrained = True
    nn.init.zeros_(last.weight)
    norm = nn.BatchNorm2d(4)
    network = nn.Sequential(holder, fixed, last, norm)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    initialise(network, "kaiming", generator())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_attention_is_begun_anew_too():
    attention = nn.MultiheadAttention(64, 4)
    initialise(attention, "small_gaussian", generator())
    assert attention.in_proj_weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert attention.out_proj.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not attention.in_proj_bias.any()


def test_same_generator_same_weights():
    layers = [nn.Linear(5, 5) for _ in range(3)]
    for layer, seed in zip(layers, (1, 1, 2), strict=True):
        initialise(layer, "xavier", generator(seed))
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)


def test_an_unknown_kind_is_told():
    with pytest.raises(ParamsError, match=r"init 'kaming': unknown; did you mean 'kaiming'\?"):
        initialise(nn.Linear(1, 1), "kaming")
    assert sorted(KINDS) == ["default", "kaiming", "small_gaussian", "xavier", "zeros"]


def second_moments(kind, depth=20, width=512):
    """The mean square of the signal behind each of `depth` linear layers with ReLUs between, from one of 1."""
    layers = [initialised(nn.Linear(width, width), kind) for _ in range(1)]
    layers += [nn.Linear(width, width) for _ in range(depth - 1)]
    source = generator()
    for layer in layers:
        initialise(layer, kind, source)
    values, found = torch.randn(256, width, generator=source), []
    with torch.no_grad():
        for layer in layers:
            values = torch.relu(layer(values))
            # the mean square behind a ReLU is half the variance before it
            found.append(2 * values.square().mean().item())
    return found


def test_kaiming_keeps_the_variance_over_twenty_relu_layers():
    # before the first ReLU the variance is fan_in * 2 / fan_in = 2, half of which passes: always 2 again
    assert all(value == pytest.approx(2, rel=0.35) for value in second_moments("kaiming"))


def test_xavier_loses_half_at_each_relu_and_small_gaussians_die_out():
    found = second_moments("xavier")
    # fan_in * 2 / (2 fan_in) = 1, then half of it each time: 2^-19 behind the twentieth
    assert found[-1] == pytest.approx(2.0**-19, rel=0.4)
    found = second_moments("small_gaussian")
    # each layer multiplies by 512 * 0.0001 / 2 = 0.0256: 2 * 0.0256^20 is 2.9e-32
    assert found[-1] == pytest.approx(2 * 0.0256**20, rel=0.6)
    assert not any(second_moments("zeros"))
