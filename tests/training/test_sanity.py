"""The sanity steps on networks whose answers are known: silent, deaf, broken and healthy ones."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models import tasks
from pipeline.params import Training
from pipeline.structures import IGNORE, Batch
from pipeline.training import sanity

TRAINING = Training(
    epochs=1,
    optimizer="sgd",
    momentum=0.0,
    nesterov=False,
    lr=0.1,
    weight_decay=0.0,
    schedule="constant",
    warmup_epochs=0,
    batch_size=8,
    clip_norm=0.0,
    ema_decay=0.0,
)


def a_batch(num: int = 20, num_classes: int = 4) -> Batch:
    """Noise, 1x4x4."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(num, 1, 4, 4, generator=generator)
    semantic = torch.randint(0, num_classes, (num, 4, 4), generator=generator)
    semantic[:, 0] = IGNORE
    labels = torch.arange(num) % num_classes
    return Batch(images, [str(i) for i in range(num)], [(4, 4)] * num, labels=labels, semantic=semantic)


class Constant(nn.Module):
    """The same logits for whatever image."""

    def __init__(self, *shape: int, size: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.logits = nn.Parameter(size * torch.randn(shape, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), *self.logits.shape)


def linear(num_classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))


@pytest.mark.parametrize(
    ("loss", "value"), [("cross_entropy", math.log(4)), ("hinge", 3.0), ("binary_cross_entropy", 4 * math.log(2))]
)
def test_a_network_without_preference_has_the_loss_that_theory_says(loss: str, value: float) -> None:
    model = tasks.Classification(Constant(4), loss=loss)
    assert sanity.expected_losses(model, a_batch())["loss"][0] == pytest.approx(value)
    assert model.loss(a_batch())["loss"].item() == pytest.approx(value, rel=1e-6)
    (check,) = sanity.initial_loss(model, a_batch())
    assert (check.state, check.found) == ("pass", f"{value:.4g}")


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge", "binary_cross_entropy"])
def test_a_network_that_prefers_a_class_before_it_learnt_fails(loss: str) -> None:
    (check,) = sanity.initial_loss(tasks.Classification(Constant(4, size=20.0), loss=loss), a_batch())
    assert check.state == "fail"


def test_weights_of_auxiliary_classifiers_count_in_the_theory() -> None:
    class Branched(Constant):
        def forward(self, images: Tensor) -> Any:
            logits = super().forward(images)
            return [(1.0, logits), (0.3, logits)] if self.training else logits

    model = tasks.Classification(Branched(4))
    (check,) = sanity.initial_loss(model, a_batch())
    assert check.found == f"{1.3 * math.log(4):.4g}"
    assert check.wanted.startswith("1.3 ln K = ")


def test_even_probabilities_over_a_map_have_the_dice_loss_of_the_formula() -> None:
    batch = a_batch(num_classes=3)
    model = tasks.Segmentation(Constant(5, 4, 4))  # two of five classes are in no image
    expected, found = sanity.expected_losses(model, batch), model.loss(batch)
    assert batch.semantic is not None
    assert expected["dice"][0] == pytest.approx(tasks.soft_dice_loss(torch.zeros(20, 5, 4, 4), batch.semantic).item())
    assert {name: check[0] for name, check in expected.items()} == pytest.approx(
        {name: found[name].item() for name in ("cross_entropy", "dice")}, rel=1e-5
    )
    # one class everywhere: 1 - 2 (N/K) / (N/K + N) = 1 - 2 / (1 + K)
    assert sanity.even_dice(torch.zeros(2, 3, 3, dtype=torch.int64), 4) == pytest.approx(1 - 2 / 5)


def test_a_loss_that_is_not_finite_fails() -> None:
    (check,) = sanity.initial_loss(tasks.Classification(Constant(4, size=math.inf)), a_batch())
    assert check.state == "fail"


class Residual(nn.Module):
    """x + scale * tanh(W x) with a scale of zero, behind which the first gradient of W is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale, self.last = nn.Linear(16, 16), nn.Parameter(torch.zeros(1)), nn.Linear(16, 4)
        self.forgotten = nn.Linear(16, 16)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        return self.last(x + self.scale * self.inner(x).tanh() + self.forgotten(x).detach())


def test_a_parameter_without_gradient_is_named_and_one_behind_a_scale_of_zero_is_not() -> None:
    torch.manual_seed(0)
    model = tasks.Classification(Residual())
    (check,) = sanity.reached(model, [a_batch()], TRAINING)
    assert check.state == "fail"
    assert check.found == "zero: network.forgotten.weight, network.forgotten.bias (2 in all)"
    model = tasks.Classification(Residual())
    model.network.forgotten.requires_grad_(False)
    (check,) = sanity.reached(model, [a_batch()], TRAINING)
    assert (check.state, check.found) == ("pass", "all; 2 tensors are frozen")


def test_a_network_that_sees_the_image_learns_twenty_by_heart_and_a_blind_one_does_not() -> None:
    def seeing() -> Any:
        torch.manual_seed(0)
        hidden = [nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.9), nn.Linear(64, 4)]
        return tasks.Classification(nn.Sequential(nn.Flatten(), *hidden), label_smoothing=0.5)

    check = sanity.overfit(seeing, a_batch(), steps=150, tell=lambda step: None)
    assert check.state == "pass", check
    assert check.found.startswith("100% after ")
    check = sanity.overfit(lambda: tasks.Classification(Constant(4)), a_batch(), steps=20, tell=lambda step: None)
    assert check.state == "fail"
    assert check.found.startswith("25% ")  # of four even classes


def test_what_regularises_is_off_while_images_are_learnt_by_heart() -> None:
    model = tasks.Classification(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1)), label_smoothing=0.1)
    with sanity.unregularised(model):
        assert model.label_smoothing == 0
        assert [module.training for module in model.network] == [False, True]
    assert model.label_smoothing == 0.1
    with pytest.raises(KeyError), sanity.unregularised(model):
        raise KeyError
    assert model.label_smoothing == 0.1


class Bowl(nn.Module):
    """The loss w^2: gradient descent multiplies w by 1 - 2 lr, so that it explodes from lr = 1 on."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (self.w**2).sum()}


def test_the_sweep_suggests_a_rate_at_which_the_loss_falls_and_finds_where_it_explodes() -> None:
    found = sanity.sweep(Bowl(), [a_batch()], TRAINING, steps=200, tell=lambda step: None)
    assert found.rates[0] == pytest.approx(1e-6)
    assert found.rates[1] / found.rates[0] == pytest.approx((10 / 1e-6) ** (1 / 199))
    assert found.limit is not None
    assert 1.0 < found.limit < 10.0
    assert found.suggested is not None
    assert 0.01 < found.suggested < 1.0
    assert sanity.judged(found, 0.1).state == "pass"
    assert sanity.judged(found, 10.0).state == "fail"


def test_a_loss_that_falls_at_no_rate_fails() -> None:
    class Deaf(Bowl):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": 1 + 0 * self.w.sum()}

    found = sanity.sweep(Deaf(), [a_batch()], TRAINING, steps=20, tell=lambda step: None)
    assert (found.suggested, found.limit) == (None, None)
    assert sanity.judged(found, 0.1).state == "fail"


def test_the_sweep_ends_where_the_loss_is_not_finite() -> None:
    class Broken(Bowl):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": self.w.sum() * math.nan}

    found = sanity.sweep(Broken(), [a_batch()], TRAINING, steps=20, tell=lambda step: None)
    assert found.losses == []
    assert sanity.judged(found, 0.1).state == "fail"
