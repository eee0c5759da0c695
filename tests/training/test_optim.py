import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet
from torch import nn

from pipeline.errors import ParamsError
from pipeline.params import Training
from pipeline.training import optim


def settings(optimizer="adamw", **changes):
    values = {
        "epochs": 1, "optimizer": optimizer, "lr": 0.1, "weight_decay": 0.3, "schedule": "constant",
        "warmup_epochs": 0.0, "batch_size": "all", "clip_norm": 0.0, "ema_decay": 0.0,
    }  # fmt: skip
    return Training(**(values | changes))


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
        (1, "step", 0.5),  # warm-up comes before any milestone
        (6, "step", 1.0),
        (7, "step", 0.1),  # 0.5 * 14
        (11, "step", 0.1),
        (12, "step", 0.01),  # 0.85 * 14 = 11.9
        (3, "inverse_sqrt", 1.0),  # the fourth step: sqrt(4 / 4)
        (4, "inverse_sqrt", math.sqrt(4 / 5)),
        (15, "inverse_sqrt", 0.5),  # sqrt(4 / 16)
    ],
)
def test_factor_by_hand(step, schedule, want):
    found = optim.factor(step, total=14, warmup=4, schedule=schedule, milestones=[0.5, 0.85], step_factor=0.1)
    assert found == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "step", "inverse_sqrt"])
def test_factor_without_warmup_starts_at_the_peak(schedule):
    assert optim.factor(0, total=8, warmup=0, schedule=schedule, milestones=[0.5], step_factor=0.1) == 1.0


def test_factor_of_a_run_that_is_all_warmup():
    factor = optim.scheduled(settings(schedule="linear"), total=2, warmup=4)
    assert [factor(s) for s in range(2)] == [0.25, 0.5]


def test_inverse_square_root_without_warmup_by_hand():
    factor = optim.scheduled(settings(schedule="inverse_sqrt"), total=9, warmup=0)
    assert [factor(s) for s in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_milestone_at_the_start_or_the_end_and_equal_ones():
    factor = optim.scheduled(
        settings(schedule="step", milestones=[0.0, 0.5, 0.5, 1.0], step_factor=0.5), total=4, warmup=0
    )
    assert [factor(s) for s in range(5)] == [0.5, 0.5, 0.125, 0.125, 0.0625]


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.backbone.is_pretrained = True
        self.fixed = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.Linear(4, 2)


def rates(model, training):
    """Learning rate and weight decay of each trainable parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optim.optimiser(model, training).param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_groups_learn_and_decay_by_their_kind():
    assert rates(Toy(), settings(backbone_lr_factor=0.5)) == {
        "backbone.0.weight": (0.05, 0.3),
        "backbone.0.bias": (0.05, 0.0),
        "backbone.1.weight": (0.05, 0.0),
        "backbone.1.bias": (0.05, 0.0),
        "head.weight": (0.1, 0.3),
        "head.bias": (0.1, 0.0),
    }


def test_layer_decay_slows_each_layer_below_by_the_factor():
    # from the top: head 0.1, then the linear layer that is fixed, then the convolution and the norm behind it
    found = rates(Toy(), settings(layer_decay=0.5))
    assert [found[name][0] for name in ("head.weight", "head.bias")] == [0.1, 0.1]
    below = [found[name][0] for name in ("backbone.0.weight", "backbone.0.bias", "backbone.1.weight")]
    assert below == pytest.approx([0.025] * 3)


@pytest.mark.parametrize(
    ("name", "top", "bottom"),
    [("test_resnet", "1.fc.weight", "1.conv1.0.weight"), ("test_vit", "1.head.weight", "1.patch_embed.proj.weight")],
)
def test_layers_of_a_timm_network_are_its_blocks(name, top, bottom):
    import timm

    network = timm.create_model(name, num_classes=2)
    above = optim.heights(nn.Sequential(nn.Identity(), network, nn.Linear(2, 2)))
    assert above["2.weight"] == above["2.bias"] == 0
    assert above[top] == 1
    assert above[bottom] == max(above.values())
    assert sorted(set(above.values())) == list(range(above[bottom] + 1))
    block = "1.blocks.0" if "vit" in name else "1.layer1.0"
    assert len({height for key, height in above.items() if key.startswith(f"{block}.")}) == 1


def test_freeze_fixes_whole_parts_of_names():
    model = nn.ModuleDict({"layer1": nn.Linear(2, 2), "layer10": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert set(rates(model, settings(freeze=["layer1", "head.bias"]))) == {
        "layer10.weight", "layer10.bias", "head.weight",
    }  # fmt: skip


def test_freeze_keeps_the_statistics_of_batch_norms():
    model = nn.ModuleDict({"low": nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), "high": nn.BatchNorm2d(2)})
    optim.freeze(model, ["low."])
    model.train()
    for part in ("low", "high"):
        model[part](torch.full((4, 1 if part == "low" else 2, 2, 2), 7.0))
    assert model["low"][1].running_mean.tolist() == [0, 0]
    assert model["high"].running_mean.tolist() == pytest.approx([0.7, 0.7])  # a tenth of the way to 7


def test_a_freeze_that_names_nothing_or_all_is_told():
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    with pytest.raises(ParamsError, match=r"training\.freeze 'stm': no parameter's name begins so; fix: .* stem"):
        optim.optimiser(model, settings(freeze=["stm"]))
    with pytest.raises(ParamsError, match=r"training\.freeze: nothing is left to train \(stem, head\); fix:"):
        optim.optimiser(model, settings(freeze=["stem", "head"]))


def descend(training, steps, start=2.0, gradient=1.0):
    """A single weight after some steps, each with the same gradient of the loss."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(start)
    optimiser = optim.optimiser(layer, training)
    for _ in range(steps):
        layer.weight.grad = torch.full((1, 1), gradient)
        optimiser.step()
    return layer.weight.item()


@pytest.mark.parametrize(
    ("optimizer", "changes", "first", "second"),
    [
        # gradient 1 + 0.3 * 2 = 1.6; then 1 + 0.3 * 1.84 = 1.552
        ("sgd", {"momentum": 0.0}, 2 - 0.16, 1.84 - 0.1552),
        # velocity 1.6, then 0.9 * 1.6 + 1.552 = 2.992
        ("sgd", {"nesterov": False}, 2 - 0.16, 1.84 - 0.2992),
        # steps 1.6 + 0.9 * 1.6 = 3.04; gradient 1 + 0.3 * 1.696 = 1.5088, velocity 2.9488, step 1.5088 + 0.9 * 2.9488
        ("sgd", {}, 2 - 0.304, 1.696 - 0.416272),
        # divided by the root of the sum of squares: 1.6, then of 2.56 + 1.57^2 = 5.0249
        ("adagrad", {}, 2 - 0.1, 1.9 - 0.157 / math.sqrt(5.0249)),
        # divided by the root of 0.01 * 2.56: 10; then 0.99 * 0.0256 + 0.01 * 1.3^2 = 0.042244
        ("rmsprop", {"momentum": 0.0}, 2 - 1, 1 - 0.13 / math.sqrt(0.042244)),
        # the velocity carries on by 0.9 * 10
        ("rmsprop", {}, 2 - 1, 1 - 0.1 * (9 + 1.3 / math.sqrt(0.042244))),
    ],
)
def test_two_steps_by_hand(optimizer, changes, first, second):
    training = settings(optimizer, **changes)
    assert [descend(training, steps) for steps in (1, 2)] == pytest.approx([first, second], rel=1e-6)


def test_decay_apart_from_the_gradient_differs_from_decay_within_it():
    # Adam divides by the gradient's size, decay and all: 1.6 / 1.6, as far as without decay
    assert descend(settings("adam"), 1) == pytest.approx(1.9)
    assert descend(settings("adam", weight_decay=0.0), 1) == pytest.approx(1.9)
    # AdamW: 2 * (1 - 0.1 * 0.3) = 1.94, and then the same 0.1
    assert descend(settings("adamw"), 1) == pytest.approx(1.84)
    assert descend(settings("adamw", weight_decay=0.0), 1) == pytest.approx(1.9)


def test_decay_within_the_gradient_fades_where_gradients_are_large():
    # gradients of +-100 in turn: of the 0.3 * 2 in Adam's gradient little is left beside them; AdamW takes 3% a step
    ends = {}
    for optimizer in ("adam", "adamw"):
        layer = nn.Linear(1, 1, bias=False)
        layer.weight.data.fill_(2.0)
        optimiser = optim.optimiser(layer, settings(optimizer, lr=0.001))
        for step in range(1000):
            layer.weight.grad = torch.full((1, 1), 100.0 * (-1) ** step)
            optimiser.step()
        ends[optimizer] = layer.weight.item()
    # (1 - 0.001 * 0.3)^1000 = 0.741, against about 0.001 * 0.6 / 100 of each step's unit
    assert ends["adamw"] == pytest.approx(2 * 0.741, abs=0.02)
    assert ends["adam"] == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("name", sorted(optim.OPTIMISERS))
def test_every_optimiser_comes_down_a_bowl(name):
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data.fill_(1.0)
    optimiser = optim.optimiser(layer, settings(name, lr=0.5 if name == "adagrad" else 0.02))

    def closure():
        optimiser.zero_grad()
        loss = (layer.weight**2).sum()
        loss.backward()
        return loss

    for _ in range(60):
        optimiser.step(closure)
    assert layer.weight.detach().norm() < 0.3  # from sqrt(3)


def test_lbfgs_finds_the_minimum_of_a_penalised_quadratic_at_once():
    torch.manual_seed(0)
    layer = nn.Linear(4, 1).double()
    values, targets = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    optimiser = optim.optimiser(layer, settings("lbfgs", lr=1.0))

    def closure():
        optimiser.zero_grad()
        loss = (layer(values) - targets).square().mean() / 2
        loss.backward()
        return loss

    for _ in range(3):
        optimiser.step(closure)
    # normal equations of mean(...)^2 / 2 + 0.3 / 2 |w|^2; the bias, of one dimension, is not decayed
    columns = torch.cat([values, torch.ones(30, 1, dtype=torch.float64)], 1)
    penalty = torch.diag(torch.tensor([0.3] * 4 + [0.0], dtype=torch.float64))
    want = torch.linalg.solve(columns.T @ columns / 30 + penalty, columns.T @ targets / 30)[:, 0]
    torch.testing.assert_close(torch.cat([layer.weight[0], layer.bias]).detach(), want, atol=1e-5, rtol=0)


def test_l1_moves_each_weight_towards_zero_and_stops_there():
    layer = nn.Linear(3, 1)
    layer.weight.data = torch.tensor([[2.0, 0.02, -0.03]])
    layer.bias.data = torch.tensor([0.01])
    optimiser = optim.optimiser(layer, settings("sgd", momentum=0.0, weight_decay=0.0, l1=0.5))
    layer.weight.grad, layer.bias.grad = torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1)
    optimiser.step()
    # 2 - 0.1 * 1 - 0.1 * 0.5; the others are closer to zero than 0.05, and the bias is not held small
    assert layer.weight.tolist() == [pytest.approx([1.85, 0, 0])]
    assert layer.weight[0, 1:].tolist() == [0, 0]
    assert layer.bias.item() == pytest.approx(0.01)


def test_elastic_net_is_that_of_scikit_learn_zeros_and_all():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 8))
    targets = values @ np.array([2.0, -1, 0, 0, 0.5, 0, 0, 0]) + 0.1 * rng.normal(size=60)
    # scikit-learn: mean square / 2 + 0.4 * (0.75 |w|_1 + 0.25 / 2 |w|_2^2)
    want = ElasticNet(alpha=0.4, l1_ratio=0.75, tol=1e-10, max_iter=10**5).fit(values, targets)
    layer = nn.Linear(8, 1).double()
    optimiser = optim.optimiser(layer, settings("sgd", lr=0.1, momentum=0.0, l1=0.3, weight_decay=0.1))
    inputs, outputs = torch.from_numpy(values), torch.from_numpy(targets)[:, None]
    for _ in range(2000):
        optimiser.zero_grad()
        ((layer(inputs) - outputs).square().mean() / 2).backward()
        optimiser.step()
    np.testing.assert_allclose(layer.weight[0].detach().numpy(), want.coef_, atol=1e-8)
    assert layer.bias.item() == pytest.approx(want.intercept_, abs=1e-8)
    assert (layer.weight == 0).sum() == (want.coef_ == 0).sum() > 0
