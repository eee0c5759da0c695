"""Any image classifier of timm by its name, with fresh or pretrained weights.

For what others have trained and is only used here. Pretrained weights see images normalised as they were trained on,
grey ones as RGB, and are marked, so that `training.backbone_lr_factor` lets them learn more slowly than the new layer.
"""

from typing import Any

from torch import nn

from pipeline.errors import ParamsError
from pipeline.models import backbones, layers
from pipeline.structures import DatasetInfo


def build(
    info: DatasetInfo,
    *,
    name: str,
    weights: str = "none",
    dropout: float = 0.0,
    options: dict[str, Any] = {},  # noqa: B006
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, and, without weights, mean and std.
        name: timm's, such as `resnet18` or `convnext_atto`.
        weights: `none`, `installed`, `pretrained` or a path to safetensors, see models/backbones.
        dropout: before the last layer.
        options: of timm's own for this network, such as `drop_path_rate`.

    Raises:
        ParamsError: unknown name or weights, or options that the network does not take.
        PipelineError: the weights do not fit.
    """
    backbones.check_name(name)
    fresh = weights == "none"
    settings: dict[str, Any] = {"in_chans": info.channels} if fresh else {}
    mean, std = (info.mean, info.std) if fresh else backbones.normalisation(name)
    if backbones.has_fixed_size(name) and info.image_size is not None:
        settings["img_size"] = tuple(info.image_size)
    try:
        body: Any = backbones.create(name, weights, **(settings | options))
    except (AssertionError, TypeError, ValueError) as error:
        raise ParamsError(f"classification/timm_model {name}: {error}; fix: its options or the image size") from error
    body.reset_classifier(0)
    body.is_pretrained = not fresh
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(body.head_hidden_size, len(info.classes)))
    return nn.Sequential(layers.Normalise(mean, std), body, head)
