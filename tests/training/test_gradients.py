"""Numeric gradients against ones worked by hand, and backward passes that are wrong on purpose."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.training import gradients
from pipeline.training.gradients import Checked


def test_the_central_difference_of_a_square_is_its_derivative() -> None:
    x = torch.tensor([3.0], dtype=torch.float64)
    # ((3 + h)^2 - (3 - h)^2) / 2h = 12h / 2h = 6 for every h
    assert gradients.central_difference(lambda: x[0].item() ** 2, x, 0, 1e-5) == pytest.approx(6, abs=1e-9)
    assert gradients.central_difference(lambda: x[0].item() ** 2, x, 0, 0.5) == pytest.approx(6, abs=1e-12)
    assert x.item() == 3.0  # as it was


def test_the_error_of_the_central_difference_falls_with_the_square_of_the_step() -> None:
    x = torch.tensor([1.0], dtype=torch.float64)
    # of x^3 it is h^2: ((1 + h)^3 - (1 - h)^3) / 2h = 3 + h^2
    for step in (0.1, 0.01):
        found = gradients.central_difference(lambda: x[0].item() ** 3, x, 0, step)
        assert found - 3 == pytest.approx(step**2, rel=1e-6)


def test_the_relative_error_is_over_the_larger_of_both() -> None:
    assert gradients.relative_error(2.0, 1.0) == 0.5
    assert gradients.relative_error(1.0, -1.0) == 2.0
    assert gradients.relative_error(0.0, 0.0) == 0.0
    assert gradients.relative_error(1e-12, 0.0, smallest=1e-5) == pytest.approx(1e-7)


def checked(loss: Callable[[], Tensor], **parameters: Tensor) -> dict[str, Checked]:
    return {one.name: one for one in gradients.check(loss, parameters, entries=3, seed=0)}


def double(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def test_a_square_is_right_to_eight_digits() -> None:
    x = double(4)
    found = checked(lambda: (x**2).sum(), x=x)["x"]
    assert found.verdict == "right"
    assert found.error < 1e-8
    for entry in found.entries:
        assert entry.analytic == pytest.approx(2 * x[entry.index].item(), rel=1e-12)
        assert entry.numeric == pytest.approx(2 * x[entry.index].item(), rel=1e-8)
    assert found.entries[0].index == int(x.abs().argmax())  # the largest gradient is always among them


class Planted(torch.autograd.Function):
    """x^2, with a backward pass that is wrong by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x**2

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return slopes[0] * 2 * x * ctx.factor, None


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "right"), (1.00001, "fine"), (1.001, "wrong"), (-1.0, "wrong")])
def test_a_wrong_backward_pass_is_found_in_its_layer_alone(factor: float, verdict: str) -> None:
    first, second, third = double(3, 3), double(3, 3), double(3)
    inputs = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)

    def loss() -> Tensor:
        hidden = torch.tanh(inputs @ first)
        return (torch.tanh(hidden @ Planted.apply(second, factor)) @ third).exp().mean()

    found = checked(loss, first=first, second=second, third=third)
    assert {name: one.verdict for name, one in found.items()} == {"first": "right", "second": verdict, "third": "right"}
    if verdict == "wrong":
        assert found["second"].error == pytest.approx(abs(1 - factor) / max(1, abs(factor)), rel=1e-3)


def test_a_parameter_that_the_backward_pass_forgets_is_wrong() -> None:
    x, y = double(3), double(3)
    found = checked(lambda: (x.detach() * y).sum(), x=x, y=y)
    assert found["y"].verdict == "right"
    assert found["x"].verdict == "wrong"
    assert {entry.analytic for entry in found["x"].entries} == {0.0}


def test_a_parameter_without_influence_is_right() -> None:
    x, y = double(3), double(3)
    assert checked(lambda: (y**2).sum(), x=x, y=y)["x"].verdict == "right"


def test_a_number_on_a_kink_is_set_aside() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    entry = checked(lambda: torch.relu(x).sum(), x=x)["x"].entries[0]
    # slopes 1 and 0 on both sides; the backward pass says 0, the central difference 1/2
    assert (entry.analytic, entry.numeric) == (0.0, pytest.approx(0.5))
    assert entry.on_kink
    assert checked(lambda: torch.relu(x).sum(), x=x)["x"].verdict == "right"


def test_a_network_with_batch_norm_and_a_cast_to_float32_is_checked_in_float64() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 3)).double()
    inputs = torch.randn(6, 4, dtype=torch.float64)
    labels = torch.arange(6) % 3

    def loss() -> Tensor:
        return nn.functional.cross_entropy(network(inputs).float(), labels)

    with gradients.in_float64():
        found = list(gradients.check(loss, dict(network.named_parameters()), entries=3, seed=0))
        assert loss().dtype == torch.float64
    assert loss().dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32
    assert {one.name: one.verdict for one in found} == dict.fromkeys(dict(network.named_parameters()), "right")
    # the mean is taken out by the batch norm, so that the bias before it has no influence at all
    assert all(abs(entry.analytic) < 1e-12 for entry in found[1].entries)
    assert math.isfinite(found[0].error)
