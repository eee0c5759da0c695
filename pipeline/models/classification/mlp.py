"""Multilayer perceptron on flattened pixels (Rumelhart et al. 1986): layers of weights with a non-linearity between.

Without the non-linearity all layers would be one linear map, whatever their number; with it each layer bends the space
once more. It sees no neighbourhoods: shuffling the pixels of all images alike changes nothing. `activation` shows why
rectifiers took over: the slope of a sigmoid is at most 1/4, and every layer multiplies the gradient by it once more
(Glorot and Bengio 2010, section 3).
"""

from typing import Annotated

from pydantic import Field
from torch import nn

from pipeline.models import layers
from pipeline.structures import DatasetInfo

Width = Annotated[int, Field(ge=1)]


def build(
    info: DatasetInfo,
    *,
    hidden: list[Width] = [256, 128],  # noqa: B006
    activation: layers.ActivationKind = "relu",
    norm: layers.NormKind = "none",
    dropout: float = 0.0,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        hidden: width of each hidden layer; without any it is softmax regression.
        activation: after each hidden layer; SELU wants training.init kaiming or small_gaussian (Klambauer et al. 2017).
        norm: before each activation; not instance.
        dropout: after each activation.

    Raises:
        PipelineError: the images are of several sizes.
    """
    height, width = layers.at_least(1, info.image_size, "classification/mlp")
    chain: list[nn.Module] = [layers.Normalise(info.mean, info.std), nn.Flatten()]
    before = info.channels * height * width
    for after in hidden:
        wide = after * layers.pieces(activation)
        chain += [nn.Linear(before, wide), layers.norm(norm, wide, dimensions=0), layers.activation(activation)]
        if dropout:
            chain.append(nn.Dropout(dropout))
        before = after
    return nn.Sequential(*chain, nn.Linear(before, len(info.classes)))
