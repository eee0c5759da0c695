from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import ParamsError, PipelineError
from pipeline.models import layers


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def normalised(values, axes):
    """(x - mean) / sqrt(variance + eps) in NumPy, the variance divided by the number of values."""
    mean, variance = values.mean(axes, keepdims=True), values.var(axes, keepdims=True)
    return (values - mean) / np.sqrt(variance + 1e-5)


@pytest.mark.parametrize(("kind", "axes"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("instance", (2, 3))])
def test_each_norm_shares_its_mean_and_variance_over_its_own_axes(kind, axes):
    values = torch.randn(3, 4, 5, 6, dtype=torch.float64) * 2 + 1
    module = layers.norm(kind, 4).double().train()
    scale, shift = torch.rand(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    module.weight.data, module.bias.data = scale, shift
    want = normalised(values.numpy(), axes) * scale.view(4, 1, 1).numpy() + shift.view(4, 1, 1).numpy()
    np.testing.assert_allclose(module(values).detach().numpy(), want, atol=1e-12)


def test_group_norm_has_32_groups_or_the_most_of_two_channels_or_more():
    assert [layers.norm("group", channels).num_groups for channels in (96, 64, 48, 8, 7, 1)] == [32, 32, 24, 4, 1, 1]
    assert layers.norm("group", 4)(torch.tensor([[1.0, 2.0, 5.0, 1.0]])[..., None, None]).any()
    values = torch.randn(2, 64, 3, 3, dtype=torch.float64)
    want = normalised(values.view(2, 32, 18).numpy(), 2).reshape(2, 64, 3, 3)
    np.testing.assert_allclose(layers.norm("group", 64).double()(values).detach().numpy(), want, atol=1e-12)


def test_batch_norm_evaluates_with_running_averages_and_the_others_with_the_image_itself():
    values = torch.randn(4, 6, 3, 3)
    for kind in ("layer", "instance", "group"):
        module = layers.norm(kind, 6).eval()
        torch.testing.assert_close(module(values)[:1], module(values[:1]))
    fresh = layers.norm("batch", 6).eval()  # averages 0 and 1: the identity but for eps
    torch.testing.assert_close(fresh(values), values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_norms_take_vectors_and_sequences_too(kind):
    for dimensions, shape in ((0, (5, 8)), (1, (5, 8, 3))):
        out = layers.norm(kind, 8, dimensions)(torch.randn(shape) * 3 + 2)
        axes = tuple(a for a in range(len(shape)) if a != 1) if kind == "batch" else tuple(range(1, len(shape)))
        if kind != "group":
            assert out.mean(axes).abs().max() < 1e-5
        assert out.shape == shape


def test_no_norm_is_the_identity_and_unknown_ones_are_told():
    assert isinstance(layers.norm("none", 4), nn.Identity)
    with pytest.raises(ParamsError, match=r"norm 'bach': unknown; did you mean 'batch'\?"):
        layers.norm("bach", 4)
    with pytest.raises(ParamsError, match="norm 'instance': a channel of a vector is one number; fix:"):
        layers.norm("instance", 4, dimensions=0)


@pytest.mark.parametrize(
    ("name", "at_minus_2", "at_1"),
    [
        ("relu", 0, 1),
        ("leaky_relu", -0.02, 1),  # 0.01 * -2
        ("elu", -0.8646647, 1),  # exp(-2) - 1
        ("selu", -1.5201665, 1.0507010),  # 1.0507 * 1.67326 * (exp(-2) - 1), and 1.0507
        ("gelu", -0.0455003, 0.8413447),  # x times the normal law's share below x: 0.0227501, 0.8413447
        ("softplus", 0.1269280, 1.3132617),  # ln(1 + exp(x))
        ("sigmoid", 0.1192029, 0.7310586),
        ("tanh", -0.9640276, 0.7615942),
    ],
)
def test_activation_by_hand(name, at_minus_2, at_1):
    found = layers.activation(name)(torch.tensor([-2.0, 1.0]))
    assert found.tolist() == pytest.approx([at_minus_2, at_1], abs=1e-6)
    assert layers.pieces(name) == 1


def test_maxout_is_the_larger_of_each_two_neighbouring_channels():
    values = torch.tensor([[1.0, 5.0, -2.0, -3.0]])
    assert layers.activation("maxout")(values).tolist() == [[5, -2]]
    assert layers.activation("maxout")(torch.zeros(2, 6, 4, 4)).shape == (2, 3, 4, 4)
    assert layers.pieces("maxout") == 2


def test_every_declared_activation_is_there_and_unknown_ones_are_told():
    assert set(get_args(layers.ActivationKind)) == set(layers.ACTIVATIONS)
    with pytest.raises(ParamsError, match=r"activation 'rellu': unknown; did you mean 'relu'\?"):
        layers.activation("rellu")


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    module, branch = layers.StochasticDepth(0.25), torch.ones(4000, 2, 3)
    out = module.train()(branch)
    kept = out[:, 0, 0] > 0
    # each image wholly: 0, or 1 / (1 - 0.25)
    torch.testing.assert_close(out, kept[:, None, None] * torch.full_like(branch, 4 / 3))
    # std of the share of 4000 draws: sqrt(0.25 * 0.75 / 4000) = 0.007
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert module.eval()(branch) is branch
    assert layers.StochasticDepth(0.0).train()(branch) is branch


def test_depth_rates_rise_by_the_linear_rule():
    assert layers.depth_rates(0.5, 5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert layers.depth_rates(0.5, 0) == []


def with_statistics(norm):
    """A batch norm as after some training."""
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 3)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm.double().eval()


def test_fold_by_hand():
    layer, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0)
    layer.weight.data, layer.bias.data = torch.tensor([[3.0]]), torch.tensor([1.0])
    norm.running_mean, norm.running_var = torch.tensor([5.0]), torch.tensor([4.0])
    norm.weight.data, norm.bias.data = torch.tensor([6.0]), torch.tensor([7.0])
    folded = layers.fold(layer, norm)
    # s = 6 / sqrt(4) = 3: weight 3 * 3, bias 3 * (1 - 5) + 7
    assert (folded.weight.item(), folded.bias.item()) == pytest.approx((9, -5))
    assert (layer.weight.item(), layer.bias.item()) == (3, 1)


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6, affine=False), (2, 4, 7, 7)),
        (nn.Conv1d(4, 3, 2), nn.BatchNorm1d(3), (2, 4, 5)),
        (nn.Linear(4, 3), nn.BatchNorm1d(3), (2, 4)),
    ],
)
def test_folded_layer_gives_what_layer_and_norm_give(layer, norm, shape):
    layer, values = layer.double(), torch.randn(shape, dtype=torch.float64)
    want = with_statistics(norm)(layer(values))
    torch.testing.assert_close(layers.fold(layer, norm)(values), want, atol=1e-12, rtol=1e-12)


class Branches(nn.Module):
    """A residual block whose second norm reads a map that the shortcut reads too."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(2, 2, 3, padding=1), with_statistics(nn.BatchNorm2d(2))
        self.second, self.second_norm = nn.Conv2d(2, 2, 3, padding=1), with_statistics(nn.BatchNorm2d(2))

    def forward(self, maps):
        maps = self.second(F.relu(self.first_norm(self.first(maps))))
        return maps + self.second_norm(maps)


def test_folded_network_keeps_a_norm_whose_input_is_read_elsewhere():
    network, maps = Branches().double().eval(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    lean = layers.folded(network)
    assert isinstance(lean.first_norm, nn.Identity)
    assert isinstance(lean.second_norm, nn.BatchNorm2d)
    torch.testing.assert_close(lean(maps), network(maps), atol=1e-12, rtol=1e-12)


def test_folded_resnet_has_no_batch_norm_left_and_equal_logits():
    from timm.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=5, channels=(4, 4, 8, 8)).double()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        with_statistics(norm)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    lean = layers.folded(network)
    assert norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    torch.testing.assert_close(lean(images), network.eval()(images), atol=1e-9, rtol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_network_that_cannot_be_followed_is_told():
    class Loop(nn.Module):
        def forward(self, values):
            return values if values.sum() > 0 else -values

    with pytest.raises(PipelineError, match=r"Loop: its layers cannot be followed .*; fix: leave its batch norms"):
        layers.folded(Loop())


def test_a_convolution_brings_a_bias_only_where_no_norm_has_one():
    plain = layers.convolution(3, 5, 3, norm_kind="none")
    normed = layers.convolution(3, 5, 3, norm_kind="batch", activation_kind=None)
    assert [type(module).__name__ for module in plain] == ["Conv2d", "ReLU"]
    assert [type(module).__name__ for module in normed] == ["Conv2d", "BatchNorm2d"]
    assert sum(p.numel() for p in plain.parameters()) == (3 * 3 * 3 + 1) * 5
    assert sum(p.numel() for p in normed.parameters()) == 3 * 3 * 3 * 5 + 2 * 5
    assert plain(torch.rand(1, 3, 6, 6)).shape == (1, 5, 6, 6)


def test_a_convolution_starts_with_kaimings_variance_within_its_group():
    for groups in (1, 16):
        weights = layers.convolution(64, 128, 3, groups=groups)[0].weight
        assert weights.std().item() == pytest.approx(np.sqrt(2 / (128 / groups * 9)), rel=0.05)


def test_channels_that_do_not_fall_into_groups_are_told():
    with pytest.raises(ParamsError, match="6 and 8 channels do not fall into 4 groups"):
        layers.convolution(6, 8, 3, groups=4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding", "want"),
    [(227, 11, 4, 0, 55), (224, 7, 2, 3, 112), (13, 3, 2, 0, 6), (5, 5, 1, 0, 1), (4, 5, 1, 0, 0)],
)
def test_places_of_a_kernel(side, kernel, stride, padding, want):
    assert layers.places(side, kernel, stride, padding) == want
    if want:
        layer = nn.Conv2d(1, 1, kernel, stride, padding)
        assert layer(torch.zeros(1, 1, side, side)).shape[2] == want


def test_map_size_follows_convolutions_and_pools_and_says_what_would_do():
    chain = nn.Sequential(
        nn.Conv2d(1, 2, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, 2, padding=1), nn.AvgPool2d(3)
    )
    maps = chain(torch.zeros(1, 1, 32, 40))
    assert layers.map_size(chain, (32, 40), "it") == tuple(maps.shape[2:])
    with pytest.raises(PipelineError, match=r"it needs images of at least 14 pixels a side \(\[13, 40\]\)"):
        layers.map_size(chain, (13, 40), "it")
    assert layers.map_size(chain, (14, 14), "it") == (1, 1)
    with pytest.raises(
        PipelineError, match=r"it needs images of one size; fix: set training\.image_size to 14 or more"
    ):
        layers.map_size(chain, None, "it")


def test_the_classifier_means_over_maps_of_any_size():
    head = layers.classifier(3, 2)
    maps = torch.rand(4, 3, 5, 7)
    torch.testing.assert_close(head(maps), F.linear(maps.mean((2, 3)), head[-1].weight, head[-1].bias))


def test_the_stem_quarters_the_sides_and_the_small_one_keeps_them():
    for small, side in ((False, 8), (True, 32)):
        stem = layers.stem(3, 4, small=small, norm_kind="batch", activation_kind="relu")
        assert stem(torch.rand(1, 3, 32, 32)).shape == (1, 4, side, side)


def test_dense_layers_by_hand():
    chain = layers.dense([2, 3, 4], [None, 0.5], "maxout")
    assert [type(module) for module in chain] == [nn.Linear, layers.Maxout, nn.Dropout, nn.Linear]
    first, last = chain[0], chain[3]
    assert (first.weight.shape, last.weight.shape) == ((6, 2), (4, 3))  # maxout takes two for each
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0], [0, 1]]).repeat(3, 1))
        first.bias.zero_()
    given = torch.tensor([[2.0, 5.0]])
    torch.testing.assert_close(chain.eval()(given), last(torch.full((1, 3), 5.0)))


def test_responses_are_normalised_as_the_paper_has_it():
    (norm,) = layers.response_norm(True)
    maps = torch.rand(1, 7, 1, 1, dtype=torch.float64) * 50
    values = maps.flatten()
    # b_i = a_i / (2 + 1e-4 * sum of the squares of the 5 maps around i) ^ .75
    want = [values[i] / (2 + 1e-4 * (values[max(0, i - 2) : i + 3] ** 2).sum()) ** 0.75 for i in range(7)]
    torch.testing.assert_close(norm(maps).flatten(), torch.stack(want))
    assert layers.response_norm(False) == []


def test_a_response_norm_is_computed_in_float32():
    (norm,) = layers.response_norm(True)
    maps = torch.linspace(-3, 3, 2 * 8 * 9).reshape(2, 8, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(maps)
    expected = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(maps.float())
    assert torch.equal(found, expected)
    # along places in a row, as a GPU has it: the same numbers
    assert torch.equal(norm(maps.flatten(2)), expected.flatten(2))


@pytest.mark.parametrize(("channels", "kernel", "is_spared"), [(8, 1, True), (16, 1, False), (8, 3, False)])
def test_narrow_strided_convolutions_see_what_they_look_at_and_give_the_same(channels, kernel, is_spared):
    network = nn.Sequential(nn.Conv2d(channels, 5, kernel, stride=(2, 3)))
    images = torch.randn(2, channels, 9, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = network(images)
    (gradient,) = torch.autograd.grad(expected.square().sum(), images)
    layers.spared(network)
    assert (network[0].stride == (1, 1)) == is_spared
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(torch.autograd.grad(network(images).square().sum(), images)[0], gradient)
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
