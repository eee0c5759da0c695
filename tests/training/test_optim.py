from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.training import optim


@pytest.mark.parametrize(
    ("step", "schedule", "want"),
    [
        (0, "cosine", 0.25),  # the first of four steps of warm-up
        (3, "cosine", 1.0),
        (4, "cosine", 1.0),
        (9, "cosine", 0.5),  # half of the ten steps that are left: cos(pi / 2) = 0
        (14, "cosine", 0.0),
        (9, "linear", 0.5),
        (12, "linear", 0.2),
        (14, "linear", 0.0),
        (2, "constant", 0.75),
        (13, "constant", 1.0),
    ],
)
def test_factor_by_hand(step, schedule, want):
    assert optim.factor(step, total=14, warmup=4, schedule=schedule) == pytest.approx(want, abs=1e-12)


def test_factor_without_warmup_starts_at_the_peak():
    assert optim.factor(0, total=8, warmup=0, schedule="cosine") == 1.0


def test_factor_of_a_run_that_is_all_warmup():
    assert [optim.factor(s, total=2, warmup=4, schedule="linear") for s in range(2)] == [0.25, 0.5]


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.backbone.is_pretrained = True
        self.fixed = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.Linear(4, 2)


def settings(optimizer="adamw"):
    return SimpleNamespace(optimizer=optimizer, lr=0.1, weight_decay=0.3, backbone_lr_factor=0.5)


def test_groups_learn_and_decay_by_their_kind():
    model = Toy()
    groups = optim.optimiser(model, settings()).param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    convolution, norm = model.backbone
    assert {id(p) for p in model.fixed.parameters()}.isdisjoint(found)
    assert found[id(convolution.weight)] == (0.05, 0.3)
    assert found[id(convolution.bias)] == found[id(norm.weight)] == found[id(norm.bias)] == (0.05, 0.0)
    assert found[id(model.head.weight)] == (0.1, 0.3)
    assert found[id(model.head.bias)] == (0.1, 0.0)
    assert len(found) == 6


@pytest.mark.parametrize("name", sorted(optim.OPTIMISERS))
def test_every_optimiser_comes_down_a_bowl(name):
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data.fill_(1.0)
    optimiser = optim.optimiser(layer, settings(name))
    for _ in range(60):
        optimiser.zero_grad()
        (layer.weight**2).sum().backward()
        for group in optimiser.param_groups:
            group["lr"] = 0.02
        optimiser.step()
    assert layer.weight.detach().norm() < 0.3  # from sqrt(3)


def test_sgd_step_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(2.0)
    optimiser = optim.optimiser(layer, settings("sgd"))
    layer.weight.grad = torch.ones(1, 1)
    optimiser.step()
    # gradient 1 + 0.3 * 2 = 1.6; Nesterov's first step adds 0.9 of it: 2 - 0.1 * 1.6 * 1.9
    assert layer.weight.item() == pytest.approx(1.696)
