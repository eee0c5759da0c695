"""Encoders that learn without labels: a loss of their own, and nearest neighbours in a memory that judge them.

After training, the embeddings of training images go into the memory with their labels, which nothing was trained on;
the class of another image is that of its neighbours there (Wu et al. 2018, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.models import backbones, layers
from pipeline.structures import Batch, DatasetInfo, Prediction

TEMPERATURE = 0.07  # of the neighbours' weights: Wu et al. 2018, section 3.4


class SelfSupervised(nn.Module):
    """What all of them share; each adds its `loss`.

    The encoder's tensors have the names that they have in a classifier that normalises and then runs the same network,
    so that one can begin at the other's checkpoint.

    Attributes:
        network: [B, C, H, W] -> embeddings [B, D].
        probabilities: that is what `predict` gives.

    Args:
        network: see above.
        info: gives K.
        neighbours: k; at most so many as the memory holds.
        memory: largest number of training images whose embeddings are kept.
    """

    embeddings: Tensor
    classes: Tensor
    probabilities = True

    def __init__(self, network: nn.Module, info: DatasetInfo, *, neighbours: int, memory: int) -> None:
        super().__init__()
        if info.image_size is None:
            raise PipelineError(f"dataset {info.name}: images of several sizes; fix: set training.image_size")
        self.network = network
        self.neighbours = min(neighbours, memory)
        was_training = network.training
        with torch.no_grad():
            network.eval()
            self.dimension = network(torch.zeros(1, info.channels, *info.image_size)).shape[1]
            network.train(was_training)
        self.register_buffer("embeddings", torch.zeros(memory, self.dimension))
        self.register_buffer("classes", torch.zeros(len(info.classes), memory))  # 1 where an image is of a class

    def embed(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D] float32 of length 1."""
        return F.normalize(self.network(images).float(), dim=1)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Fills the memory, once the weights are final: with all images, or evenly spaced ones where they are too many.

        Args:
            batches: of the training split, with labels.

        Raises:
            PipelineError: images without labels.
        """
        was_training, device = self.training, self.embeddings.device
        self.eval()
        embeddings, labels = [], []
        for batch in batches:
            if batch.labels is None:
                raise PipelineError("images without class labels: nothing says what is near; fix: a dataset with them")
            embeddings.append(self.embed(batch.images.to(device)))
            labels.append(batch.labels.to(device))
        self.train(was_training)
        found, of_class = torch.cat(embeddings), F.one_hot(torch.cat(labels), len(self.classes)).T.float()
        num = min(len(found), len(self.embeddings))
        chosen = torch.linspace(0, len(found) - 1, num, dtype=torch.float64).round().long().to(device)
        self.embeddings.zero_()
        self.classes.zero_()
        self.embeddings[:num], self.classes[:, :num] = found[chosen], of_class[:, chosen]

    def predict(self, images: Tensor) -> list[Prediction]:
        """The share of each class among the neighbours, each weighing exp(cosine / 0.07); even without any."""
        embeddings = self.embed(images)
        with torch.autocast(images.device.type, enabled=False):  # cosines of neighbours differ in later digits
            nearness = (embeddings @ self.embeddings.T).masked_fill(self.classes.sum(0) == 0, -torch.inf)
        nearest, places = nearness.topk(self.neighbours, 1)
        weights = (nearest / TEMPERATURE).softmax(1).nan_to_num(0)
        scores = (weights * self.classes[:, places]).sum(2).T
        scores = torch.where(scores.sum(1, keepdim=True) > 0, scores, 1 / len(self.classes))
        return [Prediction(scores=row) for row in scores.cpu().numpy()]


def encoder(name: str, info: DatasetInfo, *, small_stem: bool, encoder_params: dict[str, Any]) -> nn.Module:
    """A timm network by name, without weights and without its classifier, behind the normalisation of its images.

    Args:
        name: timm's, such as `resnet18`.
        info: gives C, mean and std.
        small_stem: for a ResNet on images of about 32 pixels or less: one 3x3 convolution, no pooling.
        encoder_params: passed to `timm.create_model`, such as `layers` and `channels` of a ResNet.

    Raises:
        ParamsError: no such network, or parameters that it does not have.
    """
    network: Any = backbones.create(name, "none", in_chans=info.channels, num_classes=0, **encoder_params)
    if small_stem:
        layers.small_stem(network, info.channels)
    return nn.Sequential(layers.Normalise(info.mean, info.std), network)
