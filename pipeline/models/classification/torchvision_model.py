"""Any image classifier of torchvision by its name, with fresh or pretrained weights.

For what others have trained and is only used here. A new last layer takes the place of the one for ImageNet's classes;
grey images are shown as RGB. Pretrained weights are marked, so that `training.backbone_lr_factor` lets them learn more
slowly than the new layer.
"""

from typing import Any

from torch import nn

from pipeline.errors import ParamsError
from pipeline.models import backbones, layers
from pipeline.structures import DatasetInfo

AUXILIARY = ("googlenet", "inception_v3")  # their auxiliary classifiers are left out; classification/googlenet has them


def build(
    info: DatasetInfo,
    *,
    name: str,
    weights: str = "none",
    options: dict[str, Any] = {},  # noqa: B006
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K.
        name: torchvision's, such as `resnet18` or `convnext_tiny`.
        weights: `none`, `pretrained` or a path to safetensors, see models/backbones.
        options: of torchvision's own for this network, such as `dropout`, or `image_size` of a `vit_b_16`.

    Raises:
        ParamsError: unknown name or weights, or options that the network does not take.
        PipelineError: the weights do not fit.
    """
    settings = {"aux_logits": False, "init_weights": weights == "none"} if name in AUXILIARY else {}
    try:
        body: Any = backbones.torchvision_classifier(name, weights, **(settings | options))
    except (AssertionError, TypeError, ValueError) as error:
        raise ParamsError(f"classification/torchvision_model {name}: {error}; fix: its options") from error
    last = [key for key, module in body.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    removed = body.get_submodule(last)
    channels = removed.in_features if isinstance(removed, nn.Linear) else removed.in_channels
    body.set_submodule(last, nn.Identity())
    body.is_pretrained = weights != "none"
    normalise = layers.Normalise(backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)
    return nn.Sequential(normalise, body, nn.Linear(channels, len(info.classes)))
