"""A classifier that learns from another one's answers besides the labels (Hinton et al. 2015, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.tasks import Classification
from pipeline.structures import Batch


class Distilled(Classification):
    """A student with its teacher; in all but the loss, and in its tensors and their names, it is the student.

    Args:
        student: is trained.
        teacher: [B, C, H, W] -> logits [B, K] of the same classes; stays as it is.
        temperature: T, by which both divide their logits.
        weight: of the teacher's answers in the loss, 0..1.
    """

    def __init__(self, student: Classification, teacher: nn.Module, *, temperature: float, weight: float) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(student.__dict__)
        # inside a tuple it is no part of this module: neither trained nor saved
        self.teacher = (teacher.eval().requires_grad_(False),)
        self.temperature, self.weight = temperature, weight

    def losses(self, logits: Tensor | list[tuple[float, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """The sum of the part of the teacher, times `weight`, and that of the labels, times the rest; and both."""
        teacher = self.teacher[0].to(batch.images.device)
        with torch.no_grad():
            answers = teacher(batch.images)
        of_labels = self.label_loss(logits, batch)
        main = logits[0][1] if isinstance(logits, list) else logits  # a list with those of auxiliary classifiers
        of_teacher = soft_cross_entropy(main.float(), answers.float(), self.temperature)
        total = self.weight * of_teacher + (1 - self.weight) * of_labels
        return {"loss": total, "teacher": of_teacher, "labels": of_labels}


def soft_cross_entropy(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the distributions softmax(logits / T), in nats, mean over images.

    The gradient of what is in the brackets falls as 1 / T^2, so that without the factor the labels would outweigh it
    the more the higher T. Against the paper's cross-entropy it lacks the teacher's entropy, a constant: it is 0
    where both agree.

    Args:
        logits: [B, K], of the student.
        answers: [B, K], logits of the teacher.
        temperature: T.
    """
    student, teacher = ((each / temperature).log_softmax(1) for each in (logits, answers))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
