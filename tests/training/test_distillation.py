import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.models.tasks import Classification
from pipeline.structures import Batch
from pipeline.training.distillation import Distilled, soft_cross_entropy


def batch(points=((1.0, 0.0),), labels=(0,)):
    images = torch.tensor(points)
    return Batch(images, [""] * len(images), [(1, 1)] * len(images), torch.tensor(labels))


class Fixed(nn.Module):
    """A teacher that gives the same logits for every image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def test_divergence_by_hand():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * np.log(3.0), 0.0]])
    # at T = 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2: 4 (3/4 ln 3/2 + 1/4 ln 1/2)
    want = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert soft_cross_entropy(student, teacher, 2.0).item() == pytest.approx(want, abs=1e-6)
    assert soft_cross_entropy(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-7)
    both = soft_cross_entropy(torch.cat([student, teacher]), torch.cat([teacher, teacher]), 2.0)
    assert both.item() == pytest.approx(want / 2, abs=1e-6)  # mean over images


def test_its_gradient_at_high_temperature_is_that_of_matching_logits():
    # Hinton et al. 2015, equation 4: (z - v) / (K T^2) for logits of mean 0, here times T^2
    student = torch.tensor([[1.0, -2.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[0.5, 0.5, -1.0]])
    (gradient,) = torch.autograd.grad(soft_cross_entropy(student, teacher, 1e3), student)
    torch.testing.assert_close(gradient, (student - teacher).detach() / 3, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_loss_weighs_teacher_and_labels(weight):
    student, teacher = Classification(nn.Identity(), label_smoothing=0.1), Fixed([0.0, 3.0])
    model = Distilled(student, teacher, temperature=2.0, weight=weight)
    labels = student.loss(batch())["loss"]
    soft = soft_cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), 2.0)
    found = model.loss(batch())
    torch.testing.assert_close(found["loss"], weight * soft + (1 - weight) * labels)
    torch.testing.assert_close(torch.stack([found["teacher"], found["labels"]]), torch.stack([soft, labels]))


def test_only_the_student_is_trained_saved_and_put_into_training_mode():
    student = Classification(nn.Linear(2, 2), loss="binary_cross_entropy")
    teacher = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
    before = [parameter.clone() for parameter in teacher.parameters()]
    model = Distilled(student, teacher, temperature=1.0, weight=0.5).train()
    assert list(model.state_dict()) == list(student.state_dict())
    assert [id(p) for p in model.parameters()] == [id(p) for p in student.parameters()]
    assert (model.training, teacher.training, model.criterion) == (True, False, "binary_cross_entropy")
    points = batch(torch.randn(8, 2).tolist(), (0, 1) * 4)
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = model.loss(points)["teacher"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert all(torch.equal(one, other) for one, other in zip(before, teacher.parameters(), strict=True))
    with torch.no_grad():
        own, its = (F.softmax(net(points.images), 1) for net in (model.network, teacher))
    assert (own - its).abs().max() < 0.25
